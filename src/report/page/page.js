// page: filters, theme, the browser of answers, downloads. Text of the study reaches the page through
// textContent alone.
(() => {
  const block = (id) => JSON.parse(document.getElementById(id).textContent);
  const result = block("result"), extra = block("extra"), robust = block("robust-data"), $ = (id) => document.getElementById(id);
  if (result.cell_table) {
    const { keys, rows } = result.cell_table;
    result.cells = rows.map((row) => Object.fromEntries(keys.map((k, i) => [k, row[i]])));
    delete result.cell_table;
  }
  const all = (selector) => [...document.querySelectorAll(selector)];
  const make = (tag, text, attributes) => {
    const e = document.createElement(tag);
    if (text !== undefined && text !== null) e.textContent = text;
    for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
    return e;
  };

  // ---- state ------------------------------------------------------------------------------------
  const cellAt = new Map(result.cells.map((c) => [c.task + "/" + c.variant, c]));
  const verdictAt = new Map(extra.verdicts.map((v) => [v.task_index + "/" + v.after_index, v]));
  const strategy = (v) => result.variants[v].role === "strategy";
  const stems = [...new Set(extra.specs.filter((_, v) => strategy(v)).map((x) => x[0]))];
  const maps = (extra.prompts || {}).maps || [], prompts = (extra.prompts || {}).prompts || [];
  const state = {
    result, extra, robust, stems, specs: extra.specs, task: 0, on: { strategy: new Set(stems), budget: new Set() }, mapped: null,
    cell: (t, v) => cellAt.get(t + "/" + v),
    verdict: (t, v) => verdictAt.get(t + "/" + v),
    visible: (c) => strategy(c.variant) && state.on.strategy.has(extra.specs[c.variant][0]) && state.on.budget.has(extra.specs[c.variant][1]),
    cells: (full) => result.cells.filter((c) => c.task === state.task && c.n > 0 && (state.visible(c) || (full && c.variant === 0))),
    names: () => [...new Set(result.cells.filter(state.visible).map((c) => result.variants[c.variant].name))],
    map: () => maps.find((m) => m.task === state.task && m.variant === state.mapped) || null,
  };

  // ---- theme ------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const setTheme = () => {
    state.theme = chosen || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = state.theme;
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ink", "soft", "line", "sheet", "bad"]) state[name] = style.getPropertyValue("--" + name).trim();
    $("theme").textContent = state.theme === "dark" ? "Light" : "Dark";
    all("#strategies label").forEach((l) => l.style.setProperty("--dot", charts.colourOf(state, l.querySelector("input").value)));
  };
  const config = () => ({
    background: null, font: "system-ui, sans-serif", view: { stroke: null },
    axis: { labelColor: state.soft, titleColor: state.soft, gridColor: state.line, domainColor: state.line, tickColor: state.line, titleFontWeight: "normal", titleFontSize: 12, labelFontSize: 11, gridOpacity: 0.7, labelLimit: 190 },
    legend: { labelColor: state.ink, titleColor: state.soft, titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 12 },
    header: { labelColor: state.ink, titleColor: state.soft, labelFontSize: 12 },
    title: { color: state.soft, fontSize: 12, fontWeight: "normal" }, text: { color: state.ink },
  });

  // ---- plots ------------------------------------------------------------------------------------
  const views = new Map();
  // Why there is nothing to draw, and the tasks that have what is missing.
  const nothing = (name) => {
    const has = (t) => charts.measured(state, name, t);
    const p = make("p", null, { class: "none" });
    if (has(state.task)) {
      p.append("Nothing to draw for this task and these filters.");
      return p;
    }
    p.append("Not measured by this task, but by ");
    result.tasks.forEach((t, i) => {
      if (!has(i)) return;
      const b = make("button", `${t.label}, ${t.length} tokens`, { type: "button" });
      b.addEventListener("click", () => { $("task").value = i; update(); });
      p.append(b, " ");
    });
    return p;
  };
  const draw = async (box) => {
    const name = box.dataset.plot, old = views.get(box);
    const inner = box.querySelector(".view") || box.appendChild(make("div", null, { class: "view" }));
    state.width = box.clientWidth;
    const spec = charts.list[name](state);
    if (old) old.finalize();
    views.delete(box);
    inner.replaceChildren();
    if (!spec) {
      inner.append(nothing(name));
      return;
    }
    const own = spec.own;
    delete spec.own;
    const sized = own ? {} : { width: Math.max(240, state.width), autosize: { type: "fit-x", contains: "padding" } };
    const options = { renderer: "svg", actions: false, ast: true, config: config(), tooltip: { theme: "custom" }, logLevel: 1 };
    views.set(box, await vegaEmbed(inner, { ...sized, ...spec }, options));
  };
  let drawing = Promise.resolve(), again = false;
  const drawAll = () => {
    if (again) return;
    again = true;
    drawing = drawing.then(async () => {
      again = false;
      document.documentElement.dataset.drawn = "no";
      for (const box of all(".plot")) await draw(box).catch((e) => { console.error(box.dataset.plot, e); });
      document.documentElement.dataset.drawn = "yes";
    });
  };

  // ---- filters ----------------------------------------------------------------------------------
  const boxes = (name) => all(`input[name="${name}"]`);
  const update = () => {
    state.task = +$("task").value || 0;
    for (const name of ["strategy", "budget"]) state.on[name] = new Set(boxes(name).filter((b) => b.checked).map((b) => b.value));
    all("section.rows").forEach((s) => { s.hidden = +s.dataset.task !== state.task; });
    all("tr[data-variant]").forEach((r) => { const v = +r.dataset.variant; r.hidden = strategy(v) && !state.visible({ variant: v }); });
    const shown = state.cells().length, of = result.cells.filter((c) => c.task === state.task && c.n > 0 && strategy(c.variant)).length;
    $("shown").textContent = shown === of ? `all ${of} rows` : `${shown} of ${of} rows`;
    listKey();
    listMaps();
    listFlips();
    drawAll();
  };
  const listKey = () => {
    $("key").replaceChildren(...stems.filter((x) => state.on.strategy.has(x)).map((x) => {
      const item = make("li"), mark = make("i", charts.glyphOf(state, x));
      mark.style.color = charts.colourOf(state, x);
      item.append(mark, make("code", x));
      return item;
    }), make("li", "\u2014 the full cache, where it is drawn", { class: "small" }));
  };
  const listMaps = () => {
    const box = document.querySelector('[data-plot="map"]');
    if (!box) return;
    const here = maps.filter((m) => m.task === state.task && state.visible(m));
    let field = box.querySelector(".field");
    if (!field) {
      field = box.appendChild(make("p", null, { class: "field" }));
      field.append(make("label", "Row", { for: "mapped" }), make("select", null, { id: "mapped" }), make("span", "", { class: "small" }));
      field.querySelector("select").addEventListener("change", (e) => { state.mapped = +e.target.value; drawAll(); });
    }
    const select = field.querySelector("select");
    if (!here.some((m) => m.variant === state.mapped)) state.mapped = here.length ? here[0].variant : null;
    select.replaceChildren(...here.map((m) => make("option", result.variants[m.variant].name, { value: m.variant })));
    if (state.mapped !== null) select.value = state.mapped;
    field.querySelector("span").textContent = here.length ? `sample ${here[0].index}` : "";
  };

  // ---- answers that changed ---------------------------------------------------------------------
  const oneLine = (text) => { const t = String(text === null || text === undefined ? "" : text).replace(/\s+/g, " ").trim(); return t.length > 60 ? t.slice(0, 59) + "\u2026" : t; };
  const score = (x) => (typeof x === "number" ? Math.round(1000 * x) / 10 + " %" : "n/a");
  const showPrompt = (sheet, flip, variant) => {
    const p = prompts.find((q) => q.task === state.task && q.index === flip.index);
    const kept = p && (p.kept || []).find((k) => k.variant === variant);
    if (!p) {
      sheet.append(make("p", "The prompt of this sample is not in the page.", { class: "none" }));
      return;
    }
    const legend = make("p", "", { class: "small" });
    legend.append("The prompt as it was read. ");
    if (kept) legend.append("The darker, the more heads kept the token; struck out: every head lost it. ");
    legend.append("Underlined: the evidence.");
    const text = make("div", null, { class: "prompt", tabindex: "0", role: "region", "aria-label": "prompt" });
    const isEvidence = (at) => (p.evidence || []).some(([a, b]) => at >= a && at < b);
    let k = 0;
    p.parts.forEach((part, i) => {
      if (i || part.at) text.append(make("span", `\u2026 ${part.at - (i ? p.parts[i - 1].at + p.parts[i - 1].tokens.length : 0)} tokens \u2026`, { class: "gap" }));
      let last = "", span = null;
      part.tokens.forEach((token, j) => {
        const share = kept ? kept.share[k] : "", evidence = isEvidence(part.at + j);
        k++;
        if (span && last === share + evidence) {
          span.textContent += token;
          return;
        }
        last = share + evidence;
        const names = [].concat(share === "0" ? ["lost"] : [], evidence ? ["evidence"] : []);
        span = text.appendChild(make("span", token, names.length ? { class: names.join(" ") } : {}));
        if (+share) span.style.setProperty("--k", share / 9);
      });
    });
    sheet.append(legend, text);
    const evidence = text.querySelector(".evidence");
    if (evidence) text.scrollTop = evidence.offsetTop - text.offsetTop - 120;
  };
  const sampleAt = (index) => result.samples.find((x) => x.task === state.task && x.index === index);
  const showFlip = (sheet, flip, variant) => {
    const name = result.variants[variant].name, list = make("dl");
    const line = (a, b) => list.append(make("dt", a), make("dd", String(b === null || b === undefined ? "" : b).trim()));
    line("Sample", `${flip.index}` + (typeof flip.depth === "number" ? `, evidence at ${Math.round(100 * flip.depth)} % of the prompt` : ""));
    const p = prompts.find((q) => q.task === state.task && q.index === flip.index);
    if (p && p.asked && !(sampleAt(flip.index) || {}).turns) line("Asked", p.asked.replace(/<\|[^|]*\|>/g, " ").trim());
    const sample = sampleAt(flip.index);
    const answer = (v) => sample.outcomes.find((o) => o.variant === v) || {};
    if (sample && sample.turns) {
      sample.turns.forEach((turn, k) => {
        const [full, own] = [0, variant].map((v) => (answer(v).turns || [])[k] || {});
        line(`Turn ${k + 1}`, `wanted ${(turn.answers || []).join(" | ")}; full: ${oneLine(full.text)}; ${name}: ${oneLine(own.text)}` + (full.score === own.score ? "" : own.score < full.score ? " (lost)" : " (gained)"));
      });
    } else {
      line("Wanted", (flip.answers || []).join(" | "));
      line(`full (${score(flip.before.value)})`, flip.before.failed ? "(failed)" : flip.before.text);
      line(`${name} (${score(flip.after.value)})`, flip.after.failed ? "(failed)" : flip.after.text);
    }
    sheet.replaceChildren(list);
    showPrompt(sheet, flip, variant);
  };
  // One line of what changed: the answer, or the score where it is a mean of several.
  const gist = (flip) => {
    const whole = (x) => x === 0 || x === 1;
    if (flip.after.failed) return "(failed)";
    if (whole(flip.before.value) && whole(flip.after.value)) return "\u201c" + oneLine(flip.after.text) + "\u201d";
    return `score ${score(flip.before.value)} \u2192 ${score(flip.after.value)}`;
  };
  const listFlips = () => {
    const host = $("flips");
    if (!host) return;
    const list = make("div", null, { class: "list" }), sheet = make("div", null, { class: "sheet", "aria-live": "polite" });
    for (const v of extra.verdicts) {
      if (v.task_index !== state.task || !state.visible({ variant: v.after_index })) continue;
      for (const flip of v.flips) {
        const b = make("button", null, { type: "button", "aria-pressed": "false" }), lost = flip.after.value < flip.before.value;
        b.append(make("span", lost ? "lost" : "gained", { class: "way " + (lost ? "lost" : "gained") }));
        b.append(make("code", result.variants[v.after_index].name), ` sample ${flip.index}`, make("br"), make("span", gist(flip), { class: "small" }));
        b.addEventListener("click", () => {
          list.querySelectorAll("button").forEach((x) => x.setAttribute("aria-pressed", String(x === b)));
          showFlip(sheet, flip, v.after_index);
        });
        list.append(b);
      }
    }
    if (!list.childElementCount) {
      host.replaceChildren(make("p", "None for this task and these filters.", { class: "none" }));
      return;
    }
    const browser = make("div", null, { class: "browser" });
    browser.append(list, sheet);
    host.replaceChildren(browser);
    list.firstChild.click();
  };

  // ---- downloads --------------------------------------------------------------------------------
  const save = (name, type, text) => {
    const a = make("a", null, { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(a);
    a.click();
    a.remove();
    setTimeout(() => URL.revokeObjectURL(a.href), 1000);
  };
  const csv = () => {
    const plain = new Map();
    for (const c of result.cells) for (const [k, v] of Object.entries(c)) if (typeof v === "number" && k !== "task" && k !== "variant") plain.set(k, true);
    const keys = [...plain.keys()], quote = (x) => (/[",\r\n]/.test(x) ? '"' + x.replace(/"/g, '""') + '"' : x);
    const head = ["task", "length", "query_aware", "strategy", "resolved", "front", "verdict"].concat(keys).join(",");
    const line = (c) => {
      const t = result.tasks[c.task], v = result.variants[c.variant], own = state.verdict(c.task, c.variant);
      return [quote(t.label), t.length, +t.query_aware, quote(v.name), quote(v.resolved), +c.front, own ? own.verdict : ""]
        .concat(keys.map((k) => (typeof c[k] === "number" ? c[k] : ""))).join(",");
    };
    return [head].concat(result.cells.map(line)).join("\n") + "\n";
  };

  // ---- start ------------------------------------------------------------------------------------
  $("filters").hidden = false;
  $("theme").hidden = false;
  all(".save").forEach((b) => { b.hidden = false; });
  $("save-csv").addEventListener("click", () => save("rows.csv", "text/csv", csv()));
  $("save-json").addEventListener("click", () => save("result.json", "application/json", JSON.stringify(result)));
  $("left-out").textContent = extra.left_out === "nothing" ? `The whole result is inside of this page, with ${extra.digits} digits.` :
    `To keep the page small it does without ${extra.left_out}; "kept study export" writes everything.`;
  $("theme").addEventListener("click", () => { chosen = state.theme === "dark" ? "light" : "dark"; setTheme(); listKey(); drawAll(); });
  dark.addEventListener("change", () => { setTheme(); listKey(); drawAll(); });
  $("all").addEventListener("click", () => { all("#filters input").forEach((b) => { b.checked = true; }); update(); });
  $("filters").addEventListener("change", update);
  $("filters").addEventListener("submit", (e) => e.preventDefault());
  all("tr[data-variant]").forEach((r) => { r.querySelector("th").title = result.variants[+r.dataset.variant].resolved; });
  // Many strategies at once are a tangle: begin with those at the top of the first table.
  if (stems.length > 8) {
    const first = new Set(all("section.rows tr[data-variant]").map((r) => +r.dataset.variant).filter(strategy).map((v) => extra.specs[v][0]));
    const top = [...first].slice(0, 8);
    boxes("strategy").forEach((b) => { b.checked = top.includes(b.value); });
  }
  setTheme();
  update();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
})();
