// Unit browser. The data are scripts, because a page opened from a disk may read no other files:
// milanIndex(...) once, milanPart(n, ...) when its units are shown. Texts are set as text, never as
// markup.
(function () {
  "use strict";
  var COLUMNS = 15, STRIP = 8, BATCH = 24;
  var STATUS = { "-1": "failed: no description", "-2": "abstained: no meaning found", "-3": "no description of this unit" };
  var browser = document.getElementById("browser");
  var list = document.getElementById("list");
  var further = document.getElementById("further");
  var count = document.getElementById("count");
  var dialog = document.getElementById("unit");
  var controls = {
    query: document.getElementById("query"),
    layer: document.getElementById("layer"),
    order: document.getElementById("order")
  };
  var index = null, parts = {}, waiting = {}, haystacks = [];
  var order = [], drawn = 0, opened = null, asked = 0, chosen = [];

  function element(name, attributes, children) {
    var node = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) { node.setAttribute(key, attributes[key]); });
    (children || []).forEach(function (child) {
      node.appendChild(typeof child === "string" ? document.createTextNode(child) : child);
    });
    return node;
  }

  function digits(value) {
    if (value === null || value === undefined) return "–";
    return value.toFixed(2).replace(/^(-?)0\./, "$1.");
  }

  function key(i) {
    var layer = index.layers[index.layer[i]];
    return layer[0] + "/" + layer[1] + "/" + index.unit[i];
  }

  // ---- data -------------------------------------------------------------------------------
  window.milanIndex = function (data) {
    index = data;
    start();
  };

  window.milanPart = function (number, data) {
    parts[number] = data;
    (waiting[number] || []).forEach(function (done) { done(); });
    delete waiting[number];
  };

  function need(number, done) {
    if (parts[number]) return done();
    if (waiting[number]) return void waiting[number].push(done);
    waiting[number] = [done];
    var script = element("script", { src: browser.dataset.folder + "/part-" + number + ".js" });
    script.onerror = function () { count.textContent = "A part of the data cannot be loaded."; };
    document.head.appendChild(script);
  }

  function needAll(progress, done) {
    var total = Math.ceil(index.unit.length / index.part), number = 0;
    (function next() {
      if (number === total) return done();
      progress(number, total);
      need(number++, next);
    })();
  }

  function of(i) {
    var part = parts[Math.floor(i / index.part)], at = i % index.part;
    function text(n) { return part.texts[n]; }
    return {
      annotations: part.annotations[at].map(text),
      truth: part.truth[at] === null ? null : text(part.truth[at]),
      descriptions: part.descriptions.map(function (column) {
        var cell = column[at];
        return Array.isArray(cell) ? cell.map(text) : cell < 0 ? cell : [text(cell)];
      }),
      value: part.value.map(function (column) { return column[at]; })
    };
  }

  function haystack(i) {
    if (haystacks[i] === undefined) {
      var unit = of(i), words = [key(i), unit.truth || ""].concat(unit.annotations);
      unit.descriptions.forEach(function (texts) { if (Array.isArray(texts)) words = words.concat(texts); });
      haystacks[i] = words.join("\n").toLowerCase();
    }
    return haystacks[i];
  }

  // ---- images -----------------------------------------------------------------------------
  function address(sheet) {
    if (index.sheet.data) return index.sheet.data[sheet];
    return browser.dataset.sheets + "/" + ("000" + sheet).slice(-4) + ".jpg";
  }

  var eye = "IntersectionObserver" in window ? new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (!entry.isIntersecting) return;
      entry.target.style.backgroundImage = 'url("' + address(Number(entry.target.dataset.sheet)) + '")';
      eye.unobserve(entry.target);
    });
  }, { rootMargin: "400px" }) : null;

  function thumbnails(i, first, shown, size, label) {
    var sheet = Math.floor(index.at[i] / index.sheet.rows);
    var rows = sheet === index.sheet.count - 1 ? index.sheet.last : index.sheet.rows;
    var node = element("span", { "class": "thumb", role: "img", "aria-label": label, "data-sheet": sheet });
    // Sizes are relative to the element, so that the style sheet can make it smaller.
    node.style.width = size * shown + "px";
    node.style.aspectRatio = shown + " / 1";
    node.style.backgroundSize = 100 * COLUMNS / shown + "% " + 100 * rows + "%";
    var x = COLUMNS === shown ? 0 : 100 * first / (COLUMNS - shown);
    var y = rows === 1 ? 0 : 100 * (index.at[i] % index.sheet.rows) / (rows - 1);
    node.style.backgroundPosition = x + "% " + y + "%";
    if (eye) eye.observe(node);
    else node.style.backgroundImage = 'url("' + address(sheet) + '")';
    return node;
  }

  function imageCount(i) {
    return index.sheet && index.at[i] >= 0 ? index.images[i] : 0;
  }

  // ---- the list ---------------------------------------------------------------------------
  function words() {
    return controls.query.value.toLowerCase().split(/\s+/).filter(Boolean);
  }

  function marked(text) {
    var node = element("bdi"), low = text.toLowerCase(), at = 0, sought = words();
    if (low.length !== text.length) sought = []; // some letters become longer in lower case, so positions differ: no marks
    while (at < text.length) {
      var begin = -1, word = "";
      sought.forEach(function (each) {
        var place = low.indexOf(each, at);
        if (place >= 0 && (begin < 0 || place < begin)) { begin = place; word = each; }
      });
      if (begin < 0) break;
      node.appendChild(document.createTextNode(text.slice(at, begin)));
      node.appendChild(element("mark", {}, [text.slice(begin, begin + word.length)]));
      at = begin + word.length;
    }
    node.appendChild(document.createTextNode(text.slice(at)));
    return node;
  }

  function phrases(texts) {
    if (!Array.isArray(texts)) return element("span", { "class": "dim" }, [STATUS[texts]]);
    if (!texts.length) return element("span", { "class": "dim" }, ["nothing"]);
    var node = element("span");
    texts.forEach(function (text, n) {
      if (n) node.appendChild(element("span", { "class": "between" }, [" | "]));
      node.appendChild(marked(text));
    });
    return node;
  }

  function fact(what, content) {
    return element("div", {}, [element("dt", {}, [what]), element("dd", {}, [content])]);
  }

  function card(i) {
    var unit = of(i), n = Math.min(imageCount(i), STRIP), facts = element("dl", { "class": "facts" });
    var button = element("button", { type: "button", "class": "open", "data-unit": i }, [key(i)]);
    var node = element("li", { "class": "unit" }, [element("h3", {}, [button])]);
    if (n) node.appendChild(thumbnails(i, 0, n, 60, n + " of " + imageCount(i) + " exemplars of " + key(i)));
    if (unit.truth !== null) facts.appendChild(fact("Planted", phrases([unit.truth])));
    if (unit.annotations.length) facts.appendChild(fact(index.annotators, phrases(unit.annotations)));
    index.methods.forEach(function (method, k) {
      if (chosen[k]) facts.appendChild(fact(method[0], phrases(unit.descriptions[k])));
    });
    node.appendChild(facts);
    node.appendChild(element("p", { "class": "dim" }, [
      "disagreement " + digits(index.disagreement[i]) + " · " + index.measure + " " + digits(index.value[i])
    ]));
    return node;
  }

  function draw() {
    var now = asked, end = Math.min(drawn + BATCH, order.length), number = drawn;
    further.disabled = true;
    (function next() {
      if (now !== asked) return; // another search replaced this one
      if (number < end) return need(Math.floor(order[number++] / index.part), next);
      var node = document.createDocumentFragment();
      for (; drawn < end; drawn++) node.appendChild(card(order[drawn]));
      list.appendChild(node);
      further.disabled = false;
      further.hidden = drawn >= order.length;
    })();
  }

  function sorted(ids) {
    var by = { disagree: [index.disagreement, -1], agree: [index.disagreement, 1],
               hard: [index.value, 1], easy: [index.value, -1] }[controls.order.value];
    if (!by) return ids;
    return ids.sort(function (a, b) {
      var x = by[0][a], y = by[0][b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return by[1] * (x - y) || a - b;
    });
  }

  function update() {
    var now = ++asked, sought = words(), layer = controls.layer.value, ids = [];
    function finish() {
      if (now !== asked) return;
      for (var i = 0; i < index.unit.length; i++) {
        if (layer !== "" && index.layer[i] !== Number(layer)) continue;
        if (sought.length && !sought.every(function (word) { return haystack(i).indexOf(word) >= 0; })) continue;
        ids.push(i);
      }
      order = sorted(ids);
      drawn = 0;
      list.textContent = "";
      count.textContent = order.length === index.unit.length
        ? order.length.toLocaleString("en") + " units"
        : order.length.toLocaleString("en") + " of " + index.unit.length.toLocaleString("en") + " units";
      further.hidden = true;
      draw();
      remember();
    }
    if (!sought.length) return finish();
    needAll(function (n, total) {
      if (now === asked && n) count.textContent = "loading part " + n + " of " + total;
    }, finish);
  }

  // ---- one unit ---------------------------------------------------------------------------
  function open(i) {
    opened = i;
    need(Math.floor(i / index.part), function () {
      if (opened !== i) return;
      var unit = of(i), body = document.getElementById("unit-body"), n = imageCount(i);
      document.getElementById("unit-title").textContent = key(i);
      body.textContent = "";
      if (n) {
        var grid = element("div", { "class": "exemplars" });
        for (var k = 0; k < n; k++) {
          grid.appendChild(thumbnails(i, k, 1, 128, "Exemplar " + (k + 1) + " of " + n + ", strongest first"));
        }
        body.appendChild(grid);
      }
      var facts = element("dl", { "class": "facts" });
      if (unit.truth !== null) facts.appendChild(fact("Planted", phrases([unit.truth])));
      facts.appendChild(fact(index.annotators, phrases(unit.annotations)));
      body.appendChild(facts);
      var rows = element("tbody", { role: "rowgroup" });
      index.methods.forEach(function (method, m) {
        var name = method[2]
          ? element("a", { href: browser.dataset.methods + "/" + method[2] }, [element("bdi", {}, [method[0]])])
          : element("bdi", {}, [method[0]]);
        var head = element("th", { scope: "row", role: "rowheader" }, [name]);
        if (method[1] !== "method") head.appendChild(element("span", { "class": "tag" }, [method[1]]));
        rows.appendChild(element("tr", { role: "row" }, [
          head,
          element("td", { role: "cell" }, [phrases(unit.descriptions[m])]),
          element("td", { "class": "number", role: "cell" }, [digits(unit.value[m])])
        ]));
      });
      body.appendChild(element("table", { "class": "answers", role: "table" }, [
        element("caption", { "class": "hidden" }, ["Description of the unit by each method"]),
        element("thead", { role: "rowgroup" }, [element("tr", { role: "row" }, [
          element("th", { scope: "col", role: "columnheader" }, ["Method"]),
          element("th", { scope: "col", role: "columnheader" }, ["Description"]),
          element("th", { scope: "col", role: "columnheader" }, [index.measure])
        ])]),
        rows
      ]));
      body.appendChild(element("p", { "class": "dim" }, [
        "Disagreement between methods: " + digits(index.disagreement[i]) + "."
      ]));
      var place = order.indexOf(i);
      document.getElementById("previous").disabled = place <= 0;
      document.getElementById("next").disabled = place < 0 || place >= order.length - 1;
      if (!dialog.open) dialog.showModal();
      dialog.scrollTop = 0;
      remember();
    });
  }

  function step(by) {
    var place = order.indexOf(opened) + by;
    if (place >= 0 && place < order.length) open(order[place]);
  }

  // ---- the URL holds search, filter, order and unit, so that a link shows the same ----------
  function remember() {
    var state = new URLSearchParams();
    if (controls.query.value) state.set("q", controls.query.value);
    if (controls.layer.value) state.set("layer", index.layers[Number(controls.layer.value)].join("/"));
    if (controls.order.value !== "unit") state.set("order", controls.order.value);
    if (opened !== null) state.set("unit", key(opened));
    var text = state.toString();
    try {
      history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
    } catch (error) {
      // the browser refuses: the URL stays as it is
    }
  }

  function recall() {
    var state = new URLSearchParams(location.hash.slice(1));
    controls.query.value = state.get("q") || "";
    var layers = index.layers.map(function (layer) { return layer.join("/"); });
    var layer = layers.indexOf(state.get("layer"));
    controls.layer.value = layer >= 0 ? String(layer) : "";
    if (state.get("order")) controls.order.value = state.get("order");
    if (!controls.order.value) controls.order.value = "unit";
    for (var i = 0; i < index.unit.length; i++) if (key(i) === state.get("unit")) return i;
    return null;
  }

  function start() {
    index.layers.forEach(function (layer, n) {
      controls.layer.appendChild(element("option", { value: n }, [layer.join(" / ")]));
    });
    var box = document.getElementById("chosen"), left = 3;
    index.methods.forEach(function (method, k) {
      chosen[k] = method[1] === "method" && left-- > 0;
      var input = element("input", { type: "checkbox", value: k });
      input.checked = chosen[k];
      box.appendChild(element("label", { "class": "check" }, [input, " ", element("bdi", {}, [method[0]])]));
    });
    box.addEventListener("change", function (event) {
      chosen[Number(event.target.value)] = event.target.checked;
      update();
    });
    var pause = null;
    controls.query.addEventListener("input", function () {
      clearTimeout(pause);
      pause = setTimeout(update, 150);
    });
    controls.layer.addEventListener("change", update);
    controls.order.addEventListener("change", update);
    browser.querySelector("form").addEventListener("submit", function (event) {
      event.preventDefault();
      update();
    });
    list.addEventListener("click", function (event) {
      var button = event.target.closest("button.open");
      if (button) open(Number(button.dataset.unit));
    });
    further.addEventListener("click", draw);
    if (eye) {
      new IntersectionObserver(function (entries) {
        if (entries[0].isIntersecting && !further.hidden && !further.disabled) draw();
      }, { rootMargin: "800px" }).observe(further);
    }
    document.getElementById("previous").addEventListener("click", function () { step(-1); });
    document.getElementById("next").addEventListener("click", function () { step(1); });
    document.getElementById("close").addEventListener("click", function () { dialog.close(); });
    dialog.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
    dialog.addEventListener("close", function () {
      opened = null;
      remember();
    });
    var linked = recall();
    opened = linked;
    update();
    if (linked !== null) open(linked);
  }
})();
