"""Cases of tests/test_browser.sh: pages of `test_page pages FOLDER` in a real browser."""
import csv
import io
import json
import sys
import traceback

from browser import Browser, find

folder, status = sys.argv[1], 0
MARKS = ".mark-symbol path, .mark-rect path, .mark-line path, .mark-rule line"


def case(name):
    def run(f):
        global status
        before = len(b.messages)
        try:
            f()
            bad = [m for m in b.messages[before:] if m[0] == "error"]
            assert not bad, bad[:3]
            print("ok", name)
        except Exception:
            traceback.print_exc()
            print("FAIL", name)
            status = 1
        sys.stdout.flush()
    return run


def page(name, width=1280, height=900):
    b.resize(width, height)
    b.open(folder + "/" + name)


def choose(task):
    b.js(f"(t => {{ t.value = {task}; t.dispatchEvent(new Event('change', {{bubbles: true}})); }})"
         "(document.getElementById('task'))")
    b.drawn()


def marks():
    return b.js("Object.fromEntries([...document.querySelectorAll('.plot')].map(p =>"
                f"[p.dataset.plot, p.querySelectorAll('{MARKS}').length]))")


def rows():
    return b.js("[...document.querySelectorAll('section.rows:not([hidden]) tr[data-variant]:not([hidden]) th')]"
                ".map(x => x.textContent)")


with Browser(find(), limit=150) as b:
    @case("browser_every_plot_has_marks")
    def _():
        page("all.html")
        most = marks()
        for task in range(1, 5):
            choose(task)
            most = {k: max(n, most[k]) for k, n in marks().items()}
        assert sorted(most) == sorted(["held", "peak", "speed", "budget", "depth", "turn", "again", "distance",
                                       "time", "map", "models", "length", "precision", "perturb"]), most
        assert all(most.values()), most
        outside = b.js("[...document.querySelectorAll('.plot svg')].filter(s => !(s.clientWidth > 100)).length")
        assert outside == 0, "a plot has no width"

    @case("browser_nothing_is_requested")
    def _():
        assert {r.split("/")[-1] for r in b.requests} == {"all.html"}, b.requests

    @case("browser_filters")
    def _():
        choose(0)
        every, points = rows(), "document.querySelectorAll('[data-plot=held] .mark-symbol path').length"
        assert len(every) == 2 + 9 and b.js(points) == 9, (every, b.js(points))
        b.js("document.querySelectorAll('input[name=strategy]').forEach((x, i) => { if (i) x.click(); })")
        b.drawn()
        assert rows()[2:] and all(r.lstrip("*").startswith("s0") for r in rows()[2:]), rows()
        assert len(rows()) == 5 and b.js(points) == 3
        assert b.js("document.getElementById('shown').textContent") == "3 of 9 rows"
        b.js("document.querySelector('input[name=budget]').click()")
        b.drawn()
        assert len(rows()) == 4 and b.js(points) == 2
        b.js("document.getElementById('all').click()")
        b.drawn()
        assert rows() == every and b.js(points) == 9

    @case("browser_robustness")
    def _():
        choose(0)
        points = lambda plot: b.js(f"document.querySelectorAll('[data-plot={plot}] .mark-symbol.role-mark path').length")
        # nine rows on two models; nine and the full cache on three tasks; one pair; nine perturbed
        assert [points(p) for p in ("models", "length", "precision", "perturb")] == [18, 30, 1, 9], \
            [points(p) for p in ("models", "length", "precision", "perturb")]
        assert "tau A, B" in b.js("document.querySelector('[data-plot=models] svg').textContent")
        b.js("document.querySelectorAll('input[name=strategy]').forEach((x, i) => { if (i) x.click(); })")
        b.drawn()
        assert [points(p) for p in ("models", "length", "precision", "perturb")] == [6, 12, 1, 3]
        b.js("document.getElementById('all').click()")
        choose(2)  # scored text: has no length or perturbation, and says which tasks have
        offered = b.js("[...document.querySelectorAll('[data-plot=perturb] button')].map(x => x.textContent)")
        assert len(offered) == 2 and offered[0].startswith("task0"), offered
        b.js("document.querySelector('[data-plot=perturb] button').click()")
        b.drawn()
        assert points("perturb") == 9 and b.js("document.getElementById('task').value") == "0"
        assert "Kendall's tau A, B" in b.js("document.querySelector('#fig-models pre').textContent")

    @case("browser_answers")
    def _():
        names = b.js("[...document.querySelectorAll('.list button')].map(x => x.textContent)")
        assert names and all("lost" in n for n in names), names[:3]
        lost = b.js("document.querySelector('.prompt .lost').textContent")
        evidence = b.js("document.querySelector('.prompt .evidence').textContent")
        # nine tokens of " word": 3, 4 are evidence; 3, 4, 5 of the rig's share are 0
        assert lost.strip() and set(lost.split()) == {"word"} and evidence.count("word") == 2, (lost, evidence)

    @case("browser_keyboard")
    def _():
        page("all.html")
        seen = []
        for _i in range(40):
            b.key("Tab")
            seen.append(b.js("(() => { const e = document.activeElement, s = getComputedStyle(e.type === 'checkbox' ? e.nextSibling : e);"
                             "return [e.id || e.name || e.textContent.slice(0, 20), s.outlineStyle !== 'none']; })()"))
            if seen[-1][0] == "budget" and seen[-2][0] != "budget":
                b.key(" ")
                b.drawn()
                assert len(rows()) == 8, rows()
                b.key(" ")
                b.drawn()
        names = [s[0] for s in seen]
        assert names[0].startswith("Skip") and "theme" in names and "task" in names, names
        assert names.count("budget") == 3 and names.count("strategy") == 3 and "all" in names, names
        assert all(s[1] for s in seen), [s for s in seen if not s[1]]
        b.js("document.querySelectorAll('.list button')[1].focus()")
        b.key("Enter")
        assert b.js("document.querySelectorAll('.list button')[1].getAttribute('aria-pressed')") == "true"

    @case("browser_theme")
    def _():
        light = b.js("getComputedStyle(document.body).backgroundColor")
        b.js("document.getElementById('theme').click()")
        b.drawn()
        assert b.js("getComputedStyle(document.body).backgroundColor") != light
        assert marks()["held"] > 9 and b.js("document.documentElement.dataset.theme") == "dark"
        b.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page("one.html")
        assert b.js("document.documentElement.dataset.theme") == "dark"
        b.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])

    @case("browser_downloads")
    def _():
        page("hostile.html")
        b.js("URL.createObjectURL = (x) => { window.saved = x; return '#'; };"
             "document.getElementById('save-csv').click()")
        table = list(csv.DictReader(io.StringIO(b.js("window.saved.text()"))))
        b.js("document.getElementById('save-json').click()")
        doc = json.loads(b.js("window.saved.text()"))
        assert len(table) == len(doc["cells"]) == 32
        for line, cell in zip(table, doc["cells"]):
            assert line["strategy"] == doc["variants"][cell["variant"]]["name"]
            assert line["score"] == "" or abs(float(line["score"]) - cell["score"]) < 1e-9

    @case("browser_hostile_text")
    def _():
        for task in range(4):
            choose(task)
        assert b.js("document.images.length") == 0
        assert b.js("document.querySelectorAll('script').length") == 5
        assert b.js("document.querySelector('h1').textContent").count("</script>") == 1

    @case("browser_thousand_cells")
    def _():
        page("big.html")
        assert b.js("document.querySelectorAll('input[name=strategy]:checked').length") == 8
        assert len(rows()) == 2 + 8 * 5
        b.js("document.getElementById('all').click()")
        b.drawn()
        assert len(rows()) == 102 and marks()["held"] > 100
        b.js("URL.createObjectURL = (x) => { window.saved = x; return '#'; };"
             "document.getElementById('save-csv').click()")
        assert len(list(csv.DictReader(io.StringIO(b.js("window.saved.text()"))))) == 1020

    @case("browser_phone")
    def _():
        for name in ("all.html", "one.html", "hostile.html"):
            page(name, 390, 844)
            width = b.js("document.documentElement.scrollWidth")
            assert width <= 390, (name, width)
            least = b.js("Math.min(...[...document.querySelectorAll('figure')].map(f => f.clientWidth))")
            assert least > 330, (name, least)

sys.exit(status)
