// The page /docs: Swagger UI on this gateway's own /openapi.json.

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Use the theme chosen in the UI, else the system's. */
function applyTheme() {
  const chosen = localStorage.getItem("theme");
  document.documentElement.classList.toggle("dark-mode", chosen ? chosen === "dark" : dark.matches);
}

applyTheme();
dark.addEventListener("change", applyTheme);

window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  // The default would call a service on the Internet.
  validatorUrl: null,
  // A path of the file system is one parameter to OpenAPI, and its slashes stay slashes.
  requestInterceptor(request) {
    const [path, ...query] = request.url.split("?");
    if (/\/v1\/(files|directories)\//.test(path)) {
      request.url = [path.replace(/%2F/gi, "/"), ...query].join("?");
    }
    return request;
  },
});
