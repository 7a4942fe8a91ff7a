"use strict";
(() => {
  const root = document.documentElement;
  window.addEventListener("error", (event) => { root.dataset.error = String(event.message); });
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const config = read("chart-config");
  const specs = read("chart-specs");
  const narrow = window.matchMedia("(max-width: 640px)");
  const signals = {}; // by chart: what has been chosen with buttons
  const views = {};

  async function draw(name) {
    const element = document.getElementById("chart-" + name);
    if (!element) return;
    const axis = { ...config.axis, labelLimit: narrow.matches ? 150 : config.axis.labelLimit };
    try {
      const result = await vegaEmbed(element, specs[name], {
        mode: "vega-lite",
        renderer: "svg",
        actions: false,
        logLevel: 1, // errors
        ast: true, // an interpreter instead of eval, which the page forbids itself
        defaultStyle: false,
        config: { ...config, axis },
        tooltip: { disableDefaultStyle: true, theme: "plain", offsetX: 12, offsetY: 12, maxDepth: 1 },
      });
      views[name] = result.view;
      for (const [signal, value] of Object.entries(signals[name] || {})) result.view.signal(signal, value);
      await result.view.runAsync();
      element.dataset.drawn = "yes";
    } catch (error) {
      element.dataset.failed = String(error);
      element.textContent = "This chart could not be drawn: " + error.message;
    }
  }

  async function drawAll() {
    for (const name of Object.keys(specs)) await draw(name);
    root.dataset.charts = "done";
  }

  function choose(names, signal, value) {
    for (const name of names) {
      signals[name] = { ...signals[name], [signal]: value };
      if (views[name]) views[name].signal(signal, value).runAsync();
    }
  }

  // Buttons that stress one group, and lists that do the same.
  for (const group of document.querySelectorAll(".chips[data-focus-of]")) {
    const buttons = [...group.querySelectorAll("button")];
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of buttons) other.setAttribute("aria-pressed", String(on && other === button));
      choose([group.dataset.focusOf], "focus", on ? button.dataset.value : "");
      for (const list of document.querySelectorAll("select[data-focus-of]")) {
        if (list.dataset.focusOf === group.dataset.focusOf) list.value = "";
      }
    });
  }
  for (const list of document.querySelectorAll("select[data-focus-of]")) {
    list.addEventListener("change", () => {
      choose([list.dataset.focusOf], "focus", list.value);
      for (const group of document.querySelectorAll(".chips[data-focus-of]")) {
        if (group.dataset.focusOf !== list.dataset.focusOf) continue;
        for (const button of group.querySelectorAll("button")) {
          button.setAttribute("aria-pressed", String(list.value !== "" && button.dataset.value === list.value));
        }
      }
    });
  }

  // Buttons that choose the measure of the charts of results.
  for (const group of document.querySelectorAll(".switch[data-metric-of]")) {
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      for (const other of group.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      for (const words of group.nextElementSibling.querySelectorAll("[data-metric]")) {
        words.hidden = words.dataset.metric !== button.dataset.value;
      }
      choose(group.dataset.metricOf.split(" "), "metric", button.dataset.value);
    });
  }

  // Finding and opening intents.
  for (const field of document.querySelectorAll("input[data-filter]")) {
    const list = document.getElementById("list-" + field.dataset.filter);
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      for (const item of list.querySelectorAll("details")) {
        item.hidden = !item.textContent.toLowerCase().includes(wanted);
      }
      for (const area of list.querySelectorAll(".area")) {
        area.hidden = !area.querySelector("details:not([hidden])");
      }
    });
  }
  for (const button of document.querySelectorAll("button[data-open]")) {
    button.addEventListener("click", () => {
      const items = [...document.getElementById("list-" + button.dataset.open).querySelectorAll("details")];
      const open = items.some((item) => !item.open);
      for (const item of items) item.open = open;
      button.textContent = open ? "Close all" : "Open all";
    });
  }

  // Where the reader is.
  const links = [...document.querySelectorAll("nav a")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links) link.classList.toggle("here", link.hash === "#" + entry.target.id);
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section")) watcher.observe(section);

  narrow.addEventListener("change", drawAll);
  drawAll();
})();
