"use strict";
// Draws the page from its data. What a model or a file says is only ever the text of a node.
(() => {
  const PAGE = 50; // rows that are drawn at a time
  const PREVIEW = 160; // characters of a row's texts
  const NAMES = {
    right: "right", wrong: "wrong", scored: "scored", error: "error", cut: "cut",
    not_extracted: "not extracted", scorer_failed: "scorer failed", better: "B is better", worse: "B is worse",
  };
  // Characters that steer a terminal or turn text around are shown by their number.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202d\u202e]/g;

  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);

  const visible = (text) => String(text).replace(/\r\n/g, "\n").replace(
    HIDDEN, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = visible(text);
    if (className) node.className = className;
    return node;
  }

  function append(parent, ...children) {
    for (const child of children) parent.appendChild(child);
    return parent;
  }

  const count = (n) => n.toLocaleString("en-US");

  // --- sections ---------------------------------------------------------------------------------

  function factsOf(block) {
    const list = make("dl", undefined, "facts");
    for (const [name, value] of block.facts) {
      append(list, make("dt", name), append(document.createElement("dd"), make("bdi", value)));
    }
    return block.summary ? append(make("details"), make("summary", block.summary), list) : list;
  }

  // `words`: columns of texts, the others are of numbers.
  function tableOf(caption, columns, rows, words = []) {
    const table = append(document.createElement("table"), make("caption", caption));
    const head = document.createElement("tr");
    columns.forEach((column, i) => {
      const cell = make("th", column, words.includes(i) ? "words" : "");
      cell.scope = "col";
      append(head, cell);
    });
    const body = document.createElement("tbody");
    for (const row of rows) {
      const line = document.createElement("tr");
      row.forEach((value, i) => {
        const cell = make(i ? "td" : "th", undefined, words.includes(i) ? "words" : "");
        if (!i) cell.scope = "row";
        append(line, append(cell, make("bdi", value)));
      });
      append(body, line);
    }
    append(table, append(document.createElement("thead"), head), body);
    const scrolled = append(make("div", undefined, "scrolled"), table);
    scrolled.tabIndex = 0; // so that the keyboard scrolls it
    scrolled.setAttribute("role", "region");
    scrolled.setAttribute("aria-label", visible(caption));
    return scrolled;
  }

  function figureOf(block) {
    const plot = at("plot-" + block.figure);
    for (const text of plot.querySelectorAll("text[data-label]")) {
      text.textContent = visible(data.labels[Number(text.dataset.label)]);
    }
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", visible(block.caption));
    return append(document.createElement("figure"), plot, make("figcaption", block.caption));
  }

  function drawSections() {
    data.sections.forEach((section, number) => {
      const node = document.createElement("section");
      const heading = make("h" + section.level, section.title);
      heading.id = "section-" + number;
      node.setAttribute("aria-labelledby", heading.id);
      append(node, heading);
      let figures = null; // those that follow each other stand side by side
      for (const block of section.blocks) {
        if ("figure" in block) {
          if (!figures) append(node, (figures = make("div", undefined, "figures")));
          append(figures, figureOf(block));
          continue;
        }
        figures = null;
        if ("facts" in block) append(node, factsOf(block));
        else if ("rows" in block) append(node, tableOf(block.caption, block.columns, block.rows));
        else append(node, make("p", block.text, block.warning ? "warning" : ""));
      }
      append(at("sections"), node);
      if (section.level === 2) contents(section.title, heading.id);
    });
  }

  function contents(title, id) {
    const link = make("a", title);
    link.href = "#" + id;
    append(at("contents"), append(document.createElement("li"), link));
  }

  // --- lists of samples and of items that differ ------------------------------------------------

  function said(text) {
    const node = make("pre", text, "said");
    node.dir = "auto";
    return node;
  }

  function choose(select, options) {
    for (const [value, name] of options) {
      const option = make("option", name);
      option.value = value;
      append(select, option);
    }
    select.parentElement.hidden = options.length < 3; // all, and one kind: nothing to choose
  }

  function statusOptions(rows) {
    const counts = new Map();
    for (const row of rows) counts.set(row.status, (counts.get(row.status) || 0) + 1);
    const options = [["", `all (${count(rows.length)})`]];
    const nBad = rows.length - (counts.get("right") || 0) - (counts.get("scored") || 0);
    if (counts.has("right") && nBad && counts.size > 2) options.push(["bad", `all but right (${count(nBad)})`]);
    for (const name of Object.keys(NAMES)) {
      if (counts.has(name)) options.push([name, `${NAMES[name]} (${count(counts.get(name))})`]);
    }
    return options;
  }

  // `filters`: for each select its id and whether a row has the value that is chosen. `noun`: what rows are.
  function browser(name, noun, rows, filters, texts, body, preview) {
    let found = rows;
    let page = 0;
    let haystacks = null; // made by the first search
    const list = at(name + "-rows");

    function rowNode(row) {
      const details = document.createElement("details");
      const summary = append(
        document.createElement("summary"),
        make("span", NAMES[row.status], "status is-" + row.status),
        make("bdi", row.item + (row.which ? ` (${row.which})` : ""), "item"),
        make("bdi", preview(row).slice(0, PREVIEW).replace(/\s+/g, " "), "preview"));
      append(details, summary);
      details.addEventListener("toggle", () => {
        if (details.open && details.childElementCount === 1) append(details, body(row));
      });
      return append(document.createElement("li"), details);
    }

    function draw() {
      const first = page * PAGE;
      const shown = found.slice(first, first + PAGE);
      list.replaceChildren(...shown.map(rowNode));
      list.start = first + 1;
      at(name + "-back").disabled = page === 0;
      at(name + "-next").disabled = first + PAGE >= found.length;
      at(name + "-back").parentElement.hidden = found.length <= PAGE;
      const all = `${count(rows.length)} ${rows.length === 1 ? noun : noun + "s"}`;
      const told = found.length === rows.length ? all : found.length ? `${count(found.length)} of ${all}` : "nothing is found";
      at(name + "-count").textContent = found.length > PAGE
        ? `${told}, ${count(first + 1)} to ${count(first + shown.length)} are shown` : told;
    }

    function search() {
      const wanted = at(name + "-text").value.toLowerCase();
      if (wanted && !haystacks) haystacks = new Map(rows.map((row) => [row, texts(row).join("\n").toLowerCase()]));
      const chosen = filters.map(([id, has]) => [at(id).value, has]).filter(([value]) => value !== "");
      found = rows.filter((row) => chosen.every(([value, has]) => has(row, value))
        && (!wanted || haystacks.get(row).includes(wanted)));
      page = 0;
      draw();
    }

    function turn(step) {
      page += step;
      draw();
      // A button that can't be pressed any more loses the focus.
      const [back, next] = [at(name + "-back"), at(name + "-next")];
      (step > 0 && next.disabled ? back : step < 0 && back.disabled ? next : step > 0 ? next : back)
        .focus({ preventScroll: true });
      at(name + "-form").scrollIntoView();
    }

    let waiting = 0;
    at(name + "-text").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(search, 150);
    });
    for (const [id] of filters) at(id).addEventListener("change", search);
    at(name + "-form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
    at(name + "-back").addEventListener("click", () => turn(-1));
    at(name + "-next").addEventListener("click", () => turn(1));
    draw();
  }

  const hasStatus = (row, value) => value === "bad"
    ? row.status !== "right" && row.status !== "scored" : row.status === value;

  function sampleBody(row) {
    const body = make("div", undefined, "body");
    const facts = [["item", row.item]];
    if (row.group !== null) facts.push(["group", row.group]);
    if (data.runs.length > 1) facts.push(["run", data.runs[row.run]]);
    append(body, factsOf({ facts }));
    for (const [title, text] of row.texts) append(body, make("h3", title), said(text));
    if (row.choices.length) {
      append(body, tableOf("Choices", ["choice", "which", "likelihood (log)", "probability"], row.choices, [1]));
    }
    if (row.scores.some(([, , why]) => why)) {
      append(body, tableOf("Scores", ["score", "value", "why"], row.scores, [2]));
    } else if (row.scores.length) {
      append(body, tableOf("Scores", ["score", "value"], row.scores.map(([name, value]) => [name, value])));
    }
    if (row.cut) append(body, make("p", `Cut: the whole is in line ${row.line} of samples.jsonl.`, "note"));
    return body;
  }

  function samplePreview(row) {
    const answer = row.texts.find(([title]) => title === "answer");
    const failure = row.texts.find(([title]) => title === "error");
    return (failure || answer || row.texts[row.texts.length - 1] || ["", ""])[1];
  }

  const sampleTexts = (row) => [
    row.item, row.group || "", ...row.texts.map(([, text]) => text), ...row.choices.map(([text]) => text),
    ...row.scores.map(([name, , why]) => name + " " + why)];

  function drawSamples() {
    const { rows, left_out: leftOut, most } = data.samples;
    const notes = [];
    if (leftOut) notes.push(`${count(leftOut)} more samples are in samples.jsonl; right ones were left out first.`);
    if (rows.some((row) => row.cut)) notes.push(`Of a text, ${count(most)} characters are shown at most.`);
    at("samples-note").textContent = notes.join(" ");
    choose(at("samples-status"), statusOptions(rows));
    const groups = [...new Set(rows.map((row) => row.group))];
    choose(at("samples-group"), [["", "all"], ...groups.map((group, i) => [i, group === null ? "(none)" : group])]);
    choose(at("samples-run"), [["", "all"], ...data.runs.map((label, i) => [i, label])]);
    const filters = [
      ["samples-status", hasStatus],
      ["samples-group", (row, value) => row.group === groups[value]],
      ["samples-run", (row, value) => row.run === Number(value)],
    ];
    browser("samples", "sample", rows, filters, sampleTexts, sampleBody, samplePreview);
    contents("Samples", "samples");
  }

  function flipBody(row) {
    const body = make("div", undefined, "body");
    append(body, factsOf({ facts: [["item", row.item]] }));
    if (row.prompt) append(body, make("h3", "prompt"), said(row.prompt));
    const sides = make("div", undefined, "sides");
    for (const [label, score, answer] of row.sides) {
      append(sides, append(document.createElement("div"), make("h3", `${label}: score ${score}`),
        answer === null ? make("p", "(no answer)", "note") : said(answer)));
    }
    return append(body, sides);
  }

  function drawFlips() {
    if (!data.flips) return;
    const { rows, left_out: leftOut, metric } = data.flips;
    at("flips").hidden = false;
    at("flips-note").textContent = visible(rows.length
      ? `Items of which ${metric} is not the same, those that changed most first.`
        + (leftOut ? ` ${count(leftOut)} more are told by infer compare --json.` : "")
      : `No item has another ${metric}.`);
    choose(at("flips-status"), statusOptions(rows));
    browser("flips", "item", rows, [["flips-status", hasStatus]],
      (row) => [row.item, row.prompt, ...row.sides.map(([, , answer]) => answer || "")],
      flipBody, (row) => row.prompt);
    contents("Items that differ", "flips-title");
  }

  document.title = visible("Report: " + data.title);
  at("title").textContent = visible(data.title);
  at("subtitle").textContent = visible(data.subtitle);
  drawSections();
  drawFlips();
  drawSamples();
  document.documentElement.dataset.drawn = "true";
})();
