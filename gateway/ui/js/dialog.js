// Dialogs, menus and toasts.

import { OutcomeUnknown } from "./api.js";
import { h, icon } from "./dom.js";

/** A short notice that disappears by itself; an error stays longer. */
export function toast(text, wrong = false) {
  const note = h(wrong ? "div.toast.wrong" : "div.toast", {}, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), wrong ? 9_000 : 3_500);
}

/**
 * A dialog with a form. `fields` are elements. `submit` receives the form's data; if it throws, the
 * dialog stays open and shows the message. Resolves to the result of `submit`; `null`: cancelled.
 */
export function ask(
  { title, text, fields = [], action, danger = false, wide = false, cancel = "Cancel", submit },
) {
  return new Promise((resolve) => {
    const wrong = h("p.wrong-text", { role: "alert" });
    const confirm = h(danger ? "button.danger" : "button.primary", { type: "submit" }, action);
    const id = `title-${Math.random().toString(36).slice(2)}`;
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id }, title),
      text && h("p.quiet", {}, text),
      ...fields,
      wrong,
      h(
        "div.actions",
        {},
        cancel && h("button", { type: "button", onclick: () => dialog.close() }, cancel),
        confirm,
      ),
    );
    const dialog = h(wide ? "dialog.wide" : "dialog", { "aria-labelledby": id }, form);
    let result = null;
    let unknown = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      confirm.disabled = true;
      wrong.textContent = "";
      try {
        result = submit ? await submit(new FormData(form)) : true;
        unknown = null;
        dialog.close();
      } catch (error) {
        unknown = error instanceof OutcomeUnknown ? error : null;
        wrong.textContent = error.message;
        confirm.textContent = unknown ? "Retry" : action;
      } finally {
        confirm.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (unknown) {
        toast(`${title}: it is not known whether this was done. Check the files.`, true);
      }
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, textarea") ?? confirm).focus();
  });
}

/** A dialog with one text field. Resolves to the result of `submit`; `null`: cancelled. */
export function askText({ title, text, label, value = "", action, submit, select }) {
  const input = h("input", {
    name: "value",
    value,
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    maxlength: "4096",
  });
  queueMicrotask(() => {
    input.focus();
    input.setSelectionRange(0, select ?? value.length);
  });
  return ask({
    title,
    text,
    action,
    fields: [h("label", {}, label, input)],
    submit: (data) => submit(data.get("value").trim()),
  });
}

let opened = null;

/** A menu at a button; items are `[label, action, kind]`. */
export function menu(anchor, items) {
  opened?.remove();
  const list = h(
    "div.menu",
    { role: "menu" },
    items.map(([label, action, kind]) =>
      h("button", {
        role: "menuitem",
        type: "button",
        class: kind,
        onclick: () => {
          close();
          action();
        },
      }, label)
    ),
  );
  const buttons = [...list.children];
  function close(focus = false) {
    list.remove();
    opened = null;
    document.removeEventListener("pointerdown", outside, true);
    if (focus) anchor.focus?.();
  }
  const outside = (event) => list.contains(event.target) || close();
  list.addEventListener("keydown", (event) => {
    const here = buttons.indexOf(document.activeElement);
    if (event.key === "Escape" || event.key === "Tab") close(true);
    else if (event.key === "ArrowDown") buttons[(here + 1) % buttons.length].focus();
    else if (event.key === "ArrowUp") buttons[(here + buttons.length - 1) % buttons.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.body.append(list);
  const place = anchor.getBoundingClientRect();
  list.style.left = `${Math.max(8, Math.min(place.right, innerWidth - 8) - list.offsetWidth)}px`;
  list.style.top = `${Math.min(place.bottom + 4, innerHeight - list.offsetHeight - 8)}px`;
  document.addEventListener("pointerdown", outside, true);
  opened = list;
  buttons[0]?.focus();
}

/** The button that opens a menu. */
export const moreButton = (label, open) =>
  h("button.bare.icon", {
    type: "button",
    "aria-label": label,
    "aria-haspopup": "menu",
    title: label,
    onclick: (event) => {
      event.stopPropagation();
      open(event.currentTarget);
    },
  }, icon("more"));

/** Show the keyboard shortcuts. */
export function showKeys() {
  const rows = [
    ["g then f, c, r, l, a", "go to Files, Cluster, Requests, Log, Access"],
    ["↑ ↓ Enter", "select and open"],
    ["Backspace", "the folder above"],
    ["/", "filter"],
    ["u", "upload files"],
    ["n", "new folder"],
    ["t", "new text file"],
    ["F2", "rename"],
    ["Delete", "delete"],
    ["Ctrl S", "save the edited text"],
    ["← →", "step through a diagram"],
    ["+ −", "zoom a diagram"],
    ["?", "this list"],
  ];
  ask({
    title: "Keyboard shortcuts",
    action: "Close",
    cancel: "",
    fields: [
      h(
        "dl.keys",
        {},
        rows.flatMap(([keys, what]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)]),
      ),
    ],
  });
}
