// names that can be copied; a link to a layer's details opens them
(function () {
  document.querySelectorAll(".netron").forEach(function (line) {
    var field = line.querySelector("input");
    var button = line.querySelector("button");
    var label = button.firstChild;
    button.hidden = false;
    field.addEventListener("focus", function () { field.select(); });
    button.addEventListener("click", function () {
      field.select();
      var done = document.execCommand("copy");
      button.focus();
      label.data = done ? "Copied" : "Press Ctrl+C";
      if (!done) field.select();
      setTimeout(function () { label.data = "Copy"; }, 2000);
    });
  });
  var all = document.getElementById("open-all");
  if (all) {
    all.hidden = false;
    all.addEventListener("click", function () {
      var open = all.textContent === "Open all";
      all.textContent = open ? "Fold all" : "Open all";
      document.querySelectorAll(".detail, .others").forEach(function (one) { one.open = open; });
    });
  }
  document.querySelectorAll(".panel.scroll").forEach(function (box) {
    // the labels of the rows stay where they are seen
    var svg = box.querySelector("svg"), axis = svg.querySelector(".axis");
    box.addEventListener("scroll", function () {
      var scale = svg.viewBox.baseVal.width / svg.clientWidth || 1;
      axis.setAttribute("transform", "translate(" + box.scrollLeft * scale + " 0)");
    });
    var line = box.querySelector('.firstline');
    if (line) box.scrollLeft = line.x1.baseVal.value - box.clientWidth / 2;
  });
  function reveal() {
    var target = location.hash && document.getElementById(location.hash.slice(1));
    for (var one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    if (target) target.scrollIntoView();
  }
  window.addEventListener("hashchange", reveal);
  reveal();
})();
