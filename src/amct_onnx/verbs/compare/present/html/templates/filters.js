"use strict";
(function () {
  function textOf(row) {
    var whole = Array.prototype.map.call(row.querySelectorAll("[title]"), function (e) { return e.title; });
    return (row.textContent + " " + whole.join(" ")).toLowerCase();
  }
  var ledger = document.getElementById("ledger");
  var showRest = document.getElementById("show-rest");
  // of a long ledger only what matters is shown, until anything else is asked for
  window.showWholeLedger = function () {
    if (!showRest || showRest.hidden) return;
    ledger.classList.remove("less");
    showRest.hidden = true;
    apply();
  };
  if (showRest) {
    showRest.hidden = false;
    showRest.addEventListener("click", window.showWholeLedger);
  }
  var form = document.getElementById("filters");
  var rows = Array.prototype.slice.call(document.querySelectorAll("#ledger tbody tr"));
  var count = document.getElementById("count");
  var none = document.getElementById("none");
  function apply() {
    var text = form.elements.text.value.trim().toLowerCase();
    var shown = 0;
    rows.forEach(function (row) {
      var fits = ["verdict", "op_type", "reason"].every(function (key) {
        var wanted = form.elements[key].value;
        return !wanted || row.dataset[key] === wanted;
      }) && (!text || textOf(row).indexOf(text) >= 0);
      row.hidden = !fits;
      shown += fits && !(ledger.classList.contains("less") && row.classList.contains("rest")) ? 1 : 0;
    });
    count.textContent = shown + " of " + rows.length + " layers shown";
    none.hidden = shown > 0;
  }
  if (form) {
    form.hidden = false;
    form.addEventListener("input", function () { window.showWholeLedger(); apply(); });
    form.addEventListener("change", function () { window.showWholeLedger(); apply(); });
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.addEventListener("reset", function () { setTimeout(apply, 0); });
    apply();
  }
  var legend = document.getElementById("series");
  if (legend) {
    legend.hidden = false;
    legend.addEventListener("change", function (event) {
      document.querySelectorAll('g[data-series="' + event.target.value + '"]').forEach(function (group) {
        group.style.display = event.target.checked ? "" : "none";
      });
    });
  }
  // a link to a layer shows it, whatever the filters hide
  window.addEventListener("hashchange", reveal);
  function reveal() {
    var row = location.hash && document.getElementById(location.hash.slice(1));
    if (row && row.tagName === "TR" && !row.offsetParent && form) { window.showWholeLedger(); form.reset(); setTimeout(function () { row.scrollIntoView(); }, 10); }
  }
})();
