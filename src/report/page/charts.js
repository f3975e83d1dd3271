// charts: what each figure of the page draws, as Vega-Lite. A chart is a function of the page's state that
// returns a specification, or null where the filters leave nothing. Numbers come from the page's data as
// they are; only counting, sorting and units happen here.
"use strict";
const charts = (() => {
  const MiB = 1048576;
  // Okabe and Ito's colours, which colour-blind people can tell apart; shapes repeat the difference.
  const colours = {
    light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c00", "#4d4d4d"],
    dark: ["#56b4e9", "#ff8c42", "#2fc79a", "#e79bc4", "#f0b93a", "#9ad4ff", "#c8ab4e", "#c4c4c4"],
  };
  const shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"];
  const glyphs = ["\u25cf", "\u25a0", "\u25b2", "\u25c6", "\u271a", "\u25bc", "\u25b6", "\u25c0"]; // the same shapes as text
  const glyphOf = (s, stem) => glyphs[Math.max(0, s.stems.indexOf(stem)) % 8];
  const colourOf = (s, stem) => colours[s.theme][Math.max(0, s.stems.indexOf(stem)) % 8];
  const number = (x) => typeof x === "number" && isFinite(x);

  const scales = (s) => {
    const stems = s.stems.filter((x) => s.on.strategy.has(x));
    return {
      colour: { field: "strategy", type: "nominal", legend: null, scale: { domain: stems.concat("full"), range: stems.map((x) => colourOf(s, x)).concat(s.ink) } },
      shape: { field: "strategy", type: "nominal", legend: null, scale: { domain: stems, range: stems.map((x) => shapes[s.stems.indexOf(x) % 8]) } },
    };
  };
  const row = (s, c) => ({
    strategy: s.specs[c.variant][0], budget: s.specs[c.variant][1], name: s.result.variants[c.variant].name,
  });
  const answered = (s) => s.result.tasks[s.task].kind === "generate";
  // Change of quality: points of score, or nats; more is better on the page, so NLL's axis is turned around.
  const quality = (s, c) => {
    const k = answered(s) ? 100 : 1;
    return { change: k * c.change, low: number(c.change_low) ? k * c.change_low : null, high: number(c.change_high) ? k * c.change_high : null };
  };
  const qualityAxis = (s) => ({
    field: "change", type: "quantitative",
    title: answered(s) ? "change of score, points" : "change of NLL, nats (up is better)",
    scale: { reverse: !answered(s), zero: false },
  });
  const verdict = (s, c) => ({ "non-inferior": "as good", worse: "worse", inconclusive: "cannot be told" })[(s.verdict(c.task, c.variant) || {}).verdict] || "";
  const tips = (s) => [
    { field: "name", title: "row" }, { field: "verdict", title: "verdict" },
    { field: "change", title: answered(s) ? "change, points" : "change, nats", format: answered(s) ? "+.1f" : "+.3f" },
    { field: "low", title: "95 %, from", format: answered(s) ? "+.1f" : "+.3f" },
    { field: "high", title: "to", format: answered(s) ? "+.1f" : "+.3f" },
    { field: "held", title: "held, % of full", format: ".1f" },
    { field: "x", title: "x", format: ".3~f" },
  ];
  const margins = (s) => {
    const m = answered(s) ? -100 * s.extra.margin : s.extra.nll_margin;
    const rule = (y, dash) => ({ data: { values: [{ y }] }, mark: { type: "rule", strokeDash: dash, color: s.soft }, encoding: { y: { datum: y } } });
    return [rule(0, [1, 0])].concat(number(m) ? [rule(m, [4, 3])] : []);
  };

  const against = (x, title, front) => (s) => {
    const values = s.cells().filter((c) => number(c.change) && number(c[x.field]))
      .map((c) => Object.assign(row(s, c), quality(s, c), { x: x.unit * c[x.field], held: c.held_pct, verdict: verdict(s, c), front: c.front }));
    if (!values.length) return null;
    const { colour, shape } = scales(s);
    const axis = { field: "x", type: "quantitative", title, scale: { zero: false, nice: true, padding: 12 } };
    const layer = margins(s).concat([
      { data: { values }, mark: { type: "rule", opacity: 0.45, strokeWidth: 1.5 }, encoding: { x: axis, y: { ...qualityAxis(s), field: "low" }, y2: { field: "high" }, color: colour } },
    ]);
    if (front && values.some((v) => v.front))
      layer.push({ data: { values: values.filter((v) => v.front) }, mark: { type: "line", interpolate: "linear", color: s.soft, strokeWidth: 1, opacity: 0.8 }, encoding: { x: axis, y: qualityAxis(s), order: { field: "x" } } });
    layer.push({ data: { values }, mark: { type: "point", filled: true, size: 75, opacity: 0.95 }, encoding: { x: axis, y: qualityAxis(s), color: colour, shape, tooltip: tips(s) } });
    return { layer, height: 230 };
  };

  const budget = (s) => {
    const lines = [], crosses = [];
    for (const l of s.extra.ladders) {
      if (l.task !== s.task) continue;
      for (const v of l.steps) {
        const c = s.cell(s.task, v);
        if (!c || !s.visible(c) || !number(c.change)) continue;
        const point = Object.assign(row(s, c), quality(s, c), { x: c.held_pct, held: c.held_pct, verdict: verdict(s, c) });
        lines.push(point);
        if (v === l.cliff) crosses.push(point);
      }
    }
    if (!lines.length) return null;
    const { colour, shape } = scales(s);
    const x = { field: "x", type: "quantitative", title: "memory held, % of the full cache", scale: { reverse: true, zero: false, padding: 14 }, axis: { tickCount: Math.max(4, Math.min(10, s.width / 90)) } };
    const y = qualityAxis(s);
    return {
      height: 300,
      layer: margins(s).concat([
        { data: { values: lines }, mark: { type: "rule", opacity: 0.25 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color: colour } },
        { data: { values: lines }, mark: { type: "line", strokeWidth: 2 }, encoding: { x, y, color: colour } },
        { data: { values: lines }, mark: { type: "point", filled: true, size: 60 }, encoding: { x, y, color: colour, shape, tooltip: tips(s) } },
      ]).concat(crosses.length ? [{ data: { values: crosses }, mark: { type: "text", text: "\u2715", fontSize: 17, fontWeight: 700, dy: 1, color: s.ink }, encoding: { x, y, tooltip: tips(s) } }] : []),
    };
  };

  const heat = (s) => ({ scale: { scheme: "cividis", domain: [0, 100] }, title: "score, %" });
  const percent = (a, b) => Math.round(100 * a) + "\u2013" + Math.round(100 * b) + " %";
  const depth = (s) => {
    const label = s.result.tasks[s.task].label;
    const same = s.result.tasks.map((t, i) => [t, i]).filter(([t]) => t.label === label);
    const values = [];
    for (const [task, variant, scores, counts] of s.extra.depths) {
      const c = s.cell(task, variant);
      if (!c || !s.visible(c) || !same.some(([, i]) => i === task)) continue;
      scores.forEach((score, b) => {
        const from = b / scores.length, to = (b + 1) / scores.length;
        if (counts[b]) values.push({ row: s.result.variants[variant].name, length: s.result.tasks[task].length, from: 100 * from, to: 100 * to, depth: percent(from, to), score: 100 * score, n: counts[b] });
      });
    }
    if (!values.length) return null;
    const order = s.names();
    const tooltip = [{ field: "row" }, { field: "length", title: "tokens" }, { field: "depth" }, { field: "score", format: ".1f" }, { field: "n", title: "answers" }];
    const lengths = [...new Set(values.map((v) => v.length))].sort((a, b) => a - b);
    const x = { field: "from", bin: "binned", title: "depth of the evidence, %" }, x2 = { field: "to" };
    const color = { field: "score", type: "quantitative", ...heat(s), legend: { orient: "top", direction: "horizontal", gradientLength: 160, gradientThickness: 10, titleOrient: "left" } };
    const cell = { mark: { type: "rect", stroke: s.sheet, strokeWidth: 1 }, encoding: { x, x2, y: { field: "row", type: "nominal", title: null, sort: order }, color, tooltip } };
    if (lengths.length < 2) return { data: { values }, ...cell, height: { step: 17 } };
    const panel = Math.max(90, Math.min(430, (s.width - 130) / Math.min(lengths.length, 4) - 30));
    return {
      data: { values }, columns: Math.max(1, Math.floor((s.width - 130) / (panel + 24))), facet: { field: "length", type: "ordinal", title: "tokens of the prompt", header: { titleFontWeight: "normal" } },
      spec: { ...cell, width: panel, height: { step: 17 } }, own: true,
    };
  };

  const lines = (list, x, y, options) => (s) => {
    const values = [];
    for (const c of s.cells(options.full)) {
      for (const d of c[list] || []) {
        if (number(d[y])) values.push(Object.assign(row(s, c), { x: x(d), at: d[options.at], y: (options.unit || 1) * d[y], n: d.n }));
      }
    }
    if (!values.length || (options.positive && !values.some((v) => v.y > 0))) return null;
    const shown = options.positive ? values.filter((v) => v.y > 0) : values;
    const { colour } = scales(s);
    const ranks = [...new Set(values.map((v) => v.at))].sort((a, b) => a - b).map((at) => values.find((v) => v.at === at).x);
    const budgets = [...new Set(shown.map((v) => v.budget).filter((b) => b))];
    const X = { field: "x", type: "ordinal", title: options.title, sort: ranks, axis: { labelAngle: 0, labelOverlap: true } };
    const Y = { field: "y", type: "quantitative", title: options.yTitle, scale: options.positive ? { type: "log" } : { domain: [0, 100] } };
    const encoding = { x: X, y: Y, detail: { field: "name" }, color: colour, strokeDash: { field: "budget", type: "nominal", scale: { domain: [""].concat(budgets), range: [[1, 0], [1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 4]] }, legend: budgets.length > 1 ? { title: "budget", orient: "bottom", symbolStrokeColor: s.ink, symbolSize: 500, values: budgets, columns: 4 } : null } };
    const tooltip = [{ field: "name", title: "row" }, { field: "x", title: options.title }, { field: "y", title: options.yTitle, format: ".3~g" }];
    return {
      height: 250,
      layer: [
        { data: { values: shown }, mark: { type: "line", strokeWidth: 1.8 }, encoding },
        { data: { values: shown }, mark: { type: "point", filled: true, size: 40 }, encoding: { x: X, y: Y, color: colour, tooltip } },
      ],
    };
  };

  const range = (d) => (d.to === null ? ">" + (d.from - 1) : d.from === d.to ? (d.from ? String(d.from) : "new") : d.from + "\u2013" + d.to);

  const time = (s) => {
    const read = [], evict = [], decode = [], parts = ["choosing", "moving"];
    for (const c of s.cells(true)) {
      const row = s.result.variants[c.variant].name;
      if (number(c.prefill_ns)) read.push({ row, ms: c.prefill_ns / 1e9 });
      [c.score_ns, c.compact_ns].forEach((ns, at) => { if (number(ns) && c.variant) evict.push({ row, part: parts[at], ms: ns / 1e6, at }); });
      if (number(c.tokens_per_s)) decode.push({ row, ms: 1e3 / c.tokens_per_s });
    }
    const range = s.theme === "dark" ? ["#f0b93a", "#56b4e9"] : ["#e69f00", "#0072b2"];
    const panels = [[read, "reading, s for a prompt"], [evict, "evicting, ms for a prompt"], [decode, "decoding, ms for a token"]].filter(([values]) => values.length);
    if (!panels.length) return null;
    const narrow = s.width < 560, width = narrow ? Math.max(120, s.width - 170) : (s.width - 140) / panels.length - 24;
    const sort = ["full"].concat(s.names());
    const views = panels.map(([values, title], i) => ({
      data: { values }, width, height: { step: 15 }, mark: values === evict ? "bar" : { type: "bar", color: s.soft },
      encoding: {
        y: { field: "row", type: "nominal", title: null, sort, axis: i && !narrow ? null : {} },
        x: { field: "ms", type: "quantitative", title, axis: { tickCount: 4 } },
        ...(values === evict ? { order: { field: "at" }, color: { field: "part", type: "nominal", scale: { domain: parts, range }, legend: { title: null, orient: "bottom" } } } : {}),
        tooltip: [{ field: "row" }].concat(values === evict ? [{ field: "part" }] : [], [{ field: "ms", title, format: ".2f" }]),
      },
    }));
    return narrow ? { vconcat: views, own: true } : { hconcat: views, spacing: 14, resolve: { scale: { y: "shared" } }, own: true };
  };

  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const map = (s) => {
    const m = s.map();
    if (!m) return null;
    const values = [], per = m.heads;
    for (let r = 0; r < m.lines; r++)
      for (let b = 0; b < m.bins; b++)
        values.push({ x: (m.seen * b) / m.bins, x2: (m.seen * (b + 1)) / m.bins, y: r, y2: r + 1, share: (100 * digits.indexOf(m.rows[r * m.bins + b])) / 61, head: per > 1 ? Math.floor(r / per) + "." + (r % per) : String(r) });
    const evidence = (m.evidence || []).map(([a, b]) => ({ x: a, x2: Math.max(b, a + m.seen / 300) }));
    const ticks = [...Array(Math.ceil(m.lines / per / 5)).keys()].map((i) => 5 * i * per);
    const X = { field: "x", type: "quantitative", title: "position in the prompt, tokens", scale: { domain: [0, m.seen], nice: false }, axis: { grid: false } };
    return {
      height: Math.max(160, Math.min(420, 4 * m.lines)),
      layer: [
        {
          data: { values }, mark: { type: "rect", strokeWidth: 0 },
          encoding: {
            x: X, x2: { field: "x2" },
            y: { field: "y", type: "quantitative", title: "layer", scale: { domain: [-per * 1.4, m.lines], nice: false, reverse: true }, axis: { values: ticks, labelExpr: "datum.value / " + per, grid: false } }, y2: { field: "y2" },
            color: { field: "share", type: "quantitative", title: "kept, %", scale: { scheme: "cividis", domain: [0, 100] }, legend: { orient: "top", direction: "horizontal", gradientLength: 160, gradientThickness: 10, titleOrient: "left" } },
            tooltip: [{ field: "head", title: per > 1 ? "layer.head" : "layer" }, { field: "x", title: "from token", format: ".0f" }, { field: "x2", title: "to", format: ".0f" }, { field: "share", title: "kept, %", format: ".0f" }],
          },
        },
      ].concat(evidence.length ? [{ data: { values: evidence }, mark: { type: "rect", color: s.bad }, encoding: { x: X, x2: { field: "x2" }, y: { datum: -per * 1.2 }, y2: { datum: -per * 0.2 } } }] : []),
    };
  };

  // ---- robustness: views of robust-data, whose rows name their variant where it is one of the page's -----------
  // Rows on other models are known by their names alone.
  const variantOf = (s, name) => s.result.variants.findIndex((v) => v.name === name);
  const seen = (s, v) => v < 0 || v === 0 || s.visible({ variant: v });
  const named = (s, v, name) => (v >= 0 ? { strategy: v ? s.specs[v][0] : "full", budget: s.specs[v][1], name } : { strategy: name, budget: "", name });
  const sameTask = (s, t) => ((x) => (g) => g.task === x.label && g.kind === x.kind && g.length === x.length)(s.result.tasks[t]);
  const plainOf = (t) => (d) => d.plain_index === t || d.task_index === t;
  const letter = (i) => String.fromCharCode(65 + i);

  const models = (s) => {
    const g = s.robust.models.find(sameTask(s, s.task));
    if (!g) return null;
    const k = g.kind === "score" ? 1 : 100, values = [], order = g.models.map((_, i) => i).sort((a, b) => g.models[a].n_params - g.models[b].n_params);
    const label = (i) => `${letter(i)}: ${g.models[i].name}, ${Math.round(g.models[i].n_params / 1e6)}M`;
    for (const r of g.rows) {
      const v = variantOf(s, r.row);
      if (seen(s, v)) r.rank.forEach((rank, i) => values.push({ ...named(s, v, r.row), model: label(i), rank, change: k * r.change[i] }));
    }
    if (!values.length) return null;
    const { colour, shape } = scales(s);
    const tau = (t) => `${letter(t.a)}, ${letter(t.b)}: ${t.tau < 0 ? "\u2212" : ""}${Math.abs(t.tau).toFixed(2)}` + (number(t.p) ? ` (p ${t.p.toPrecision(2)})` : " (with ties)");
    const shown = g.tau.length > 6 ? [...g.tau].sort((a, b) => a.tau - b.tau).filter((_, i, all) => !i || i === all.length - 1) : g.tau;
    const x = { field: "model", type: "nominal", title: null, sort: order.map(label), scale: { padding: 0.4 }, axis: { labelAngle: 0, labelLimit: Math.max(90, s.width / g.models.length - 20), labelExpr: "split(datum.label, /[ ,]+/)" } };
    const y = { field: "rank", type: "quantitative", title: "rank", scale: { reverse: true, zero: false, nice: false, padding: 12 }, axis: { tickMinStep: 1 } };
    const tooltip = [{ field: "name", title: "row" }, { field: "model" }, { field: "rank" }, { field: "change", title: k === 1 ? "change, nats" : "change, points", format: k === 1 ? "+.3f" : "+.1f" }];
    // Rows by name where there is room: one of those that share a rank on the last model.
    const last = label(order[order.length - 1]), at = new Map();
    for (const v of values) if (v.model === last) at.set(v.rank, (at.get(v.rank) || []).concat(v));
    const names = s.width < 560 ? [] : [...at.values()].map((all) => ({ ...all[0], text: all[0].name + (all.length > 1 ? `, ${all.length - 1} more` : "") }));
    return {
      height: Math.max(180, Math.min(420, 16 * g.rows.length)), data: { values },
      title: { text: shown.length ? (s.width < 560 ? ["Kendall's tau"].concat(shown.map(tau)) : ["Kendall's tau " + shown.map(tau).join("; ")]) : [""], anchor: "start" },
      layer: [
        { mark: { type: "line", strokeWidth: 1.6 }, encoding: { x, y, detail: { field: "name" }, color: colour } },
        { mark: { type: "point", filled: true, size: 65 }, encoding: { x, y, color: colour, shape, tooltip } },
      ].concat(names.length ? [{ data: { values: names }, mark: { type: "text", align: "left", dx: 9, fontSize: 11 }, encoding: { x, y, text: { field: "text" }, color: colour } }] : []),
    };
  };

  const grows = (s) => {
    const values = [], rules = [];
    for (const r of s.robust.length) {
      if (!seen(s, r.variant) || !r.points.some((p) => p.task === s.task)) continue;
      const full = r.variant === 0;
      for (const p of r.points)
        values.push({ ...named(s, r.variant, full ? "full" : r.row), x: p.length, y: 100 * p.score, share: 100 * p.ratio, slope: 100 * r.slope, low: 100 * r.slope_low, high: 100 * r.slope_high, effective: number(r.effective_length) ? String(r.effective_length) : "none" });
      if (full) rules.push({ y: 85 * r.points[0].score });
    }
    if (!values.length) return null;
    const { colour } = scales(s), lengths = [...new Set(values.map((v) => v.x))].sort((a, b) => a - b);
    const budgets = [...new Set(values.map((v) => v.budget).filter((b) => b))];
    const x = { field: "x", type: "quantitative", title: "tokens of the prompt", scale: { type: "log", base: 2, nice: false, padding: 16 }, axis: { values: lengths, format: "d", labelOverlap: true } };
    const y = { field: "y", type: "quantitative", title: "score, %", scale: { domain: [0, 100] } };
    const tooltip = [{ field: "name", title: "row" }, { field: "x", title: "tokens" }, { field: "y", title: "score, %", format: ".1f" }, { field: "share", title: "of full, %", format: ".1f" }, { field: "slope", title: "per doubling, points of full", format: "+.1f" }, { field: "low", title: "95 %, from", format: "+.1f" }, { field: "high", title: "to", format: "+.1f" }, { field: "effective", title: "effective length" }];
    const dash = { field: "budget", type: "nominal", scale: { domain: [""].concat(budgets), range: [[1, 0], [1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 4]] }, legend: budgets.length > 1 ? { title: "budget", orient: "bottom", symbolStrokeColor: s.ink, symbolSize: 500, values: budgets, columns: 4 } : null };
    return {
      height: 280,
      layer: [
        { data: { values: rules.slice(0, 1) }, mark: { type: "rule", strokeDash: [4, 3], color: s.soft }, encoding: { y: { field: "y", type: "quantitative" } } },
        { data: { values }, mark: { type: "line", strokeWidth: 1.8 }, encoding: { x, y, detail: { field: "name" }, color: colour, strokeDash: dash } },
        { data: { values }, mark: { type: "point", filled: true, size: 45 }, encoding: { x, y, color: colour, tooltip } },
      ],
    };
  };

  // A line for every row: a point with its interval beside 0.
  const forest = (s, values, title, tooltip, more) => {
    if (!values.length) return null;
    const names = [...new Set(values.map((v) => v.name))], { colour } = scales(s);
    const y = { field: "name", type: "nominal", title: null, sort: names, axis: { labelLimit: Math.max(90, s.width * 0.42) }, scale: { padding: 0.3 } };
    const x = { field: "x", type: "quantitative", title, scale: { zero: true, nice: true } };
    const color = (more && more.color) || colour, offset = more && more.yOffset ? { yOffset: more.yOffset } : {};
    return {
      data: { values }, height: { step: more && more.step || 22, for: "position" },
      layer: [
        { data: { values: [{}] }, mark: { type: "rule", color: s.soft }, encoding: { x: { datum: 0 } } },
        { mark: { type: "rule", strokeWidth: 1.5, opacity: 0.6 }, encoding: { y, x: { ...x, field: "low" }, x2: { field: "high" }, color, ...offset } },
        { mark: { type: "point", filled: true, size: 60 }, encoding: { y, x, color, tooltip, ...offset } },
      ],
    };
  };
  const precision = (s) => {
    const k = answered(s) ? 100 : 1, f = answered(s) ? "+.1f" : "+.4f", unit = answered(s) ? "points" : "nats";
    const values = s.robust.precision.filter((r) => r.task_index === s.task && seen(s, r.variant) && seen(s, r.packed_variant))
      .map((r) => ({ ...named(s, r.variant, r.packed), x: k * r.interaction, low: k * r.low, high: k * r.high, evict: k * r.evict, pack: k * r.pack, both: k * r.both, n: r.n }));
    const tooltip = [{ field: "name", title: "row" }, { field: "n", title: "samples" }].concat([["evict", "eviction alone"], ["pack", "packing alone"], ["both", "both"], ["x", "beyond the sum"], ["low", "95 %, from"], ["high", "to"]].map(([field, title]) => ({ field, title, format: f })));
    return forest(s, values, answered(s) ? "beyond the sum, points (left: worse)" : "beyond the sum, nats (right: worse)", tooltip);
  };
  const perturbed = (s) => {
    const here = s.robust.perturb.filter((r) => plainOf(s.task)(r) && r.variant > 0 && seen(s, r.variant));
    const kinds = [...new Set(here.map((r) => r.perturb))];
    const values = here.map((r) => ({ ...named(s, r.variant, r.row), kind: r.perturb, x: 100 * r.excess, low: 100 * r.low, high: 100 * r.high, drift: 100 * r.drift, full: 100 * r.full_drift, n: r.n, moved: r.moved }));
    const points = (field, title) => ({ field, title, format: "+.1f" });
    const tooltip = [{ field: "name", title: "row" }, { field: "kind", title: "perturbed" }, { field: "n", title: "samples" }, { field: "moved", title: "of which moved" }, points("drift", "changes"), points("full", "full's"), points("x", "beyond it"), points("low", "95 %, from"), points("high", "to")];
    const color = { field: "kind", type: "nominal", scale: { domain: kinds, range: kinds.map((_, i) => colours[s.theme][i % 8]) }, legend: { title: null, orient: "top", columns: s.width < 560 ? 2 : 4 } };
    return forest(s, values, "beyond the full cache, points", tooltip, { color, yOffset: { field: "kind", type: "nominal", sort: kinds }, step: 10 + 9 * kinds.length });
  };

  // Whether a task has what a figure needs, where not every task has it.
  const needs = { turn: "by_turn", again: "by_again", distance: "by_distance" };
  const views = {
    models: (s, t) => s.robust.models.some(sameTask(s, t)),
    length: (s, t) => s.robust.length.some((r) => r.points.some((p) => p.task === t)),
    precision: (s, t) => s.robust.precision.some((r) => r.task_index === t),
    perturb: (s, t) => s.robust.perturb.some(plainOf(t)),
  };
  const measured = (s, name, t) => {
    const key = needs[name];
    if (views[name]) return views[name](s, t);
    return !key || s.result.cells.some((c) => c.task === t && c[key] && c[key].length);
  };
  return {
    colourOf, glyphOf, measured,
    list: {
      held: against({ field: "held_bytes", unit: 1 / MiB }, "MiB held after the eviction", true),
      peak: against({ field: "peak_bytes", unit: 1 / MiB }, "MiB at the peak", false),
      speed: against({ field: "speed_ratio", unit: 1 }, "decoding speed, times the full cache", false),
      budget, depth,
      turn: lines("by_turn", (d) => String(d.turn), "score", { at: "turn", unit: 100, title: "turn", yTitle: "score, %", full: true }),
      again: lines("by_again", range, "score", { at: "from", unit: 100, title: "turns since the same was asked", yTitle: "score, %", full: true }),
      distance: lines("by_distance", range, "kl", { at: "from", positive: true, title: "tokens after the eviction", yTitle: "KL, nats" }),
      time, map, models, length: grows, precision, perturb: perturbed,
    },
  };
})();
