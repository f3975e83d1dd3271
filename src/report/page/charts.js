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

  // What a cell must have for a figure to be drawn, where not every task has it.
  const needs = { turn: "by_turn", again: "by_again", distance: "by_distance" };
  return {
    colourOf, glyphOf, needs,
    list: {
      held: against({ field: "held_bytes", unit: 1 / MiB }, "MiB held after the eviction", true),
      peak: against({ field: "peak_bytes", unit: 1 / MiB }, "MiB at the peak", false),
      speed: against({ field: "speed_ratio", unit: 1 }, "decoding speed, times the full cache", false),
      budget, depth,
      turn: lines("by_turn", (d) => String(d.turn), "score", { at: "turn", unit: 100, title: "turn", yTitle: "score, %", full: true }),
      again: lines("by_again", range, "score", { at: "from", unit: 100, title: "turns since the same was asked", yTitle: "score, %", full: true }),
      distance: lines("by_distance", range, "kl", { at: "from", positive: true, title: "tokens after the eviction", yTitle: "KL, nats" }),
      time, map,
    },
  };
})();
