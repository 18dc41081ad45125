// Light or dark theme: the system's, or the reader's choice. Runs before the page is drawn.
(function () {
  "use strict";
  var root = document.documentElement;
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  var chosen = null;
  try {
    chosen = localStorage.getItem("theme"); // a page opened from a disk may have no storage
  } catch (error) {
    chosen = null;
  }
  function dark() {
    return chosen ? chosen === "dark" : system.matches;
  }
  function show() {
    root.dataset.theme = dark() ? "dark" : "light";
    var button = document.getElementById("theme");
    if (button) {
      button.hidden = false;
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", dark() ? "Switch to light colours" : "Switch to dark colours");
    }
  }
  show();
  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", function () {
    show();
    var button = document.getElementById("theme");
    if (!button) return;
    button.addEventListener("click", function () {
      chosen = dark() ? "light" : "dark";
      try {
        localStorage.setItem("theme", chosen);
      } catch (error) {
        // without storage, the choice holds for this page only
      }
      show();
    });
  });
})();
