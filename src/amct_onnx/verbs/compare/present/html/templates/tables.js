// tables that are sorted by their columns, and the layers as a file
(function () {
  function value(row, column) {
    var cell = row.cells[column];
    return cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim();
  }
  function sort(table, column, down) {
    var body = table.tBodies[0];
    if (table.id === "ledger") window.showWholeLedger();
    Array.prototype.slice.call(body.rows).map(function (row, place) {
      var text = value(row, column);
      return { row: row, text: text, number: text === "" ? NaN : Number(text), empty: text === "" || text === "–", place: place };
    }).sort(function (a, b) {
      if (a.empty !== b.empty) return a.empty ? 1 : -1;
      var order = isNaN(a.number) || isNaN(b.number) ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number;
      return (down ? -order : order) || a.place - b.place;
    }).forEach(function (item) { body.appendChild(item.row); });
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, place) {
      head.setAttribute("aria-sort", place === column ? (down ? "descending" : "ascending") : "none");
    });
    var choice = document.querySelector('select[data-table="' + table.id + '"]');
    if (choice) choice.value = String(down ? -column - 1 : column + 1);
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      while (head.firstChild) button.appendChild(head.firstChild);
      head.appendChild(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () { sort(table, column, head.getAttribute("aria-sort") === "ascending"); });
    });
  });
  document.querySelectorAll("select[data-table]").forEach(function (choice) {
    var table = document.getElementById(choice.dataset.table);
    choice.addEventListener("change", function () {
      var wanted = Number(choice.value);
      sort(table, Math.abs(wanted) - 1, wanted < 0);
    });
  });
  var download = document.getElementById("download");
  download.hidden = false;
  download.addEventListener("click", function () {
    // the mark at the beginning tells spreadsheets that it is UTF-8
    var file = new Blob(["\ufeff" + document.getElementById("csv").textContent], { type: "text/csv;charset=utf-8" });
    var link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = "compare_layers.csv";
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });
})();
