// Questions, menus and short notes.

import { Unsettled } from "./api.js";
import { h, icon } from "./dom.js";

/** A short note that goes away by itself; what went wrong stays longer. */
export function toast(text, wrong = false) {
  const note = h(wrong ? "div.toast.wrong" : "div.toast", {}, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), wrong ? 9_000 : 3_500);
}

/**
 * A dialog with a form. `fields` are elements; `submit` is run with the form's data and may throw:
 * its message is shown and the dialog stays. Resolves to what `submit` gave, or `null` if cancelled.
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
    let open = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      confirm.disabled = true;
      wrong.textContent = "";
      try {
        result = submit ? await submit(new FormData(form)) : true;
        open = null;
        dialog.close();
      } catch (error) {
        open = error instanceof Unsettled ? error : null;
        wrong.textContent = error.message;
        confirm.textContent = open ? "Ask again" : action;
      } finally {
        confirm.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (open) toast(`${title}: it is not known whether this was done. Look at the files.`, true);
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, textarea") ?? confirm).focus();
  });
}

/** A question with one text; resolves to the text or `null`. */
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

/** What the keys do. */
export function showKeys() {
  const rows = [
    ["g then f, c, r, l", "go to Files, Cluster, Requests, Log"],
    ["↑ ↓ Enter", "choose and open"],
    ["Backspace", "the folder above"],
    ["/", "filter"],
    ["u", "upload files"],
    ["n", "new folder"],
    ["t", "new text file"],
    ["F2", "rename"],
    ["Delete", "delete"],
    ["Ctrl S", "save what is edited"],
    ["← →", "message by message, in a diagram"],
    ["+ −", "zoom a diagram"],
    ["?", "this list"],
  ];
  ask({
    title: "Keys",
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
