// Sorting and filtering of the tables on a page.
(function () {
  "use strict";

  function value(row, column, kind) {
    var raw = row.cells[column].dataset.value;
    if (kind === "text") return raw || "";
    return raw === undefined || raw === "" || isNaN(raw) ? null : Number(raw);
  }

  function sort(table, header, button) {
    var column = header.cellIndex;
    var first = button.dataset.first || "ascending";
    var now = header.getAttribute("aria-sort");
    var order = now ? (now === "ascending" ? "descending" : "ascending") : first;
    var kind = button.dataset.sort;
    var rows = Array.from(table.tBodies[0].rows);
    rows.sort(function (a, b) {
      var x = value(a, column, kind), y = value(b, column, kind);
      if (x === null || y === null) return (x === null) - (y === null); // unknown values come last
      var difference = kind === "text" ? x.localeCompare(y) : x - y;
      return order === "ascending" ? difference : -difference;
    });
    Array.from(table.tHead.rows[0].cells).forEach(function (cell) {
      cell.removeAttribute("aria-sort");
    });
    header.setAttribute("aria-sort", order);
    rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
  }

  document.querySelectorAll("form.filters[data-for]").forEach(function (form) {
    var table = document.getElementById(form.dataset.for);
    var rows = Array.from(table.tBodies[0].rows);
    function filter() {
      var words = form.querySelector("[data-filter=text]").value.toLowerCase().trim();
      var boxes = Array.from(form.querySelectorAll("[data-filter=kind]"));
      var kinds = boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; });
      var shown = 0;
      rows.forEach(function (row) {
        var fits = row.dataset.text.toLowerCase().indexOf(words) >= 0 &&
          (!boxes.length || kinds.indexOf(row.dataset.kind) >= 0);
        row.hidden = !fits;
        shown += fits;
      });
      form.querySelector("[data-count]").textContent =
        shown === rows.length ? rows.length + " rows" : shown + " of " + rows.length + " rows";
    }
    form.addEventListener("input", filter);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    filter();
    table.tHead.addEventListener("click", function (event) {
      var button = event.target.closest("button[data-sort]");
      if (button) sort(table, button.closest("th"), button);
    });
  });
})();
