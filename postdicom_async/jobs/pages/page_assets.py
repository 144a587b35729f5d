"""The style sheets of a job's pages, for phone, desk, dark room and paper; and the live page's one script. Pure."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --soft: #f5f7f8; --text: #15202b; --quiet: #55616e; --line: #dfe4e8; --track: #e3e8ec;
  --accent: #0b6272; --present: #8fbcc4; --running: #4d94a1; --bad: #b3261e; --doubtful: #8a5a00; --mark: #d98e04;
  --grey: #9aa5b0; --bad-soft: #fdf1f0; --on-accent: #fff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10161c; --soft: #182028; --text: #e6ebf0; --quiet: #9fabb8; --line: #2a343e; --track: #2a343e;
    --accent: #62c4d3; --present: #2f6f7b; --running: #4793a0; --bad: #ff8f87; --doubtful: #f0b95a; --mark: #f0b95a;
    --grey: #6b7885; --bad-soft: #2a1a1b; --on-accent: #06252b;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
main { padding-top: 2.5rem; }
.kind { margin: 0; display: flex; flex-wrap: wrap; gap: .4rem .8rem; align-items: center; font-weight: 600;
  color: var(--quiet); }
.pill { padding: .1rem .7rem; border: 1px solid currentColor; border-radius: 1rem; font-size: .875rem; }
.pill, .pill.good { color: var(--accent); }
.pill.bad, .bad { color: var(--bad); }
.pill.doubtful { color: var(--doubtful); }
h1 { margin: .5rem 0 0; font-size: clamp(1.5rem, 1.1rem + 2vw, 2.25rem); line-height: 1.2; font-weight: 650;
  letter-spacing: -.01em; }
h1 .to { color: var(--accent); font-weight: 400; }
.lead { margin: .75rem 0 0; max-width: 44rem; font-size: 1.1rem; color: var(--quiet); }
h2 { margin: 0 0 .9rem; font-size: 1.25rem; font-weight: 640; letter-spacing: -.005em; }
h3 { margin: 1.75rem 0 .35rem; font-size: 1rem; font-weight: 640; }
section { margin-top: 2.75rem; padding-top: 2rem; border-top: 1px solid var(--line); }
p { margin: .35rem 0 .8rem; max-width: 46rem; }
.quiet { color: var(--quiet); }
dl { margin: 0; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.numbers { margin-top: 2rem; display: grid; gap: 1.25rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.numbers dd { font-size: 1.75rem; line-height: 1.25; font-weight: 600; letter-spacing: -.015em;
  overflow-wrap: break-word; }
.numbers > div { min-width: 0; }
.numbers dd small { display: block; font-size: .85rem; font-weight: 400; letter-spacing: 0; color: var(--quiet); }
.facts { margin-top: 1.75rem; padding-top: 1.25rem; border-top: 1px solid var(--line); display: grid; gap: .9rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); font-size: .95rem; }
.alarm { margin-top: 2rem; padding: 1rem 1.25rem; border: 2px solid var(--bad); border-radius: .5rem;
  background: var(--bad-soft); }
.alarm h2 { margin: 0 0 .25rem; color: var(--bad); }
.alarm ul { margin: .25rem 0 0; padding-left: 1.2rem; }
svg { display: block; width: 100%; }
.bar { height: .9rem; border-radius: .25rem; background: var(--track); margin-bottom: 1.25rem; }
.bar.small { height: .5rem; min-width: 5rem; margin: 0; border-radius: .15rem; }
rect.done, .swatch.done { fill: var(--accent); background: var(--accent); }
rect.present, .swatch.present { fill: var(--present); background: var(--present); }
rect.running, .swatch.running { fill: var(--running); background: var(--running); }
rect.failed, .swatch.failed { fill: var(--bad); background: var(--bad); }
rect.unconfirmed, .swatch.unconfirmed { fill: var(--mark); background: var(--mark); }
rect.excluded, .swatch.excluded { fill: var(--grey); background: var(--grey); }
rect.deleted, .swatch.deleted { fill: var(--quiet); background: var(--quiet); }
rect.pending, .swatch.pending { fill: var(--track); background: var(--track); }
.swatch { display: inline-block; width: .7rem; height: .7rem; margin-right: .6rem; border-radius: .15rem; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
th, td { padding: .5rem .9rem .5rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  font-weight: 400; overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-size: .85rem; color: var(--quiet); vertical-align: bottom; }
tfoot th, tfoot td { font-weight: 650; border-bottom: 0; border-top: 2px solid var(--text); }
tr.part th { padding-left: 1.35rem; }
tr.part th, tr.part td { color: var(--quiet); }
.n { text-align: right; white-space: nowrap; }
td:has(> .bar) { width: 40%; vertical-align: middle; }
.uids { overflow-wrap: anywhere; }
code { font: .85em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.uids { margin: 0; padding: 0; list-style: none; color: var(--quiet); }
.charts { display: grid; gap: 2rem; }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: .6rem; font-size: .95rem; }
figcaption b { font-weight: 600; display: block; }
figcaption .quiet { font-size: .875rem; }
.frame { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: .3rem .6rem; font-size: .75rem;
  color: var(--quiet); font-variant-numeric: tabular-nums; }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; line-height: 1; }
.plot { height: 9.5rem; overflow: visible; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.x { grid-column: 2; display: flex; justify-content: space-between; }
g:hover rect { opacity: .75; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; margin: .8rem 0 1.75rem; padding: 0; list-style: none;
  font-size: .85rem; color: var(--quiet); }
.notes { margin: 0; padding-left: 1.2rem; max-width: 46rem; }
.notes li { margin-bottom: .35rem; }
footer { margin-top: 3rem; padding-top: 1.25rem; padding-bottom: 3rem; font-size: .85rem; color: var(--quiet); }
@media (min-width: 52rem) { .charts { grid-template-columns: 1fr 1fr; } }
@media (max-width: 34rem) {
  main { padding-top: 1.5rem; }
  .numbers { grid-template-columns: 1fr 1fr; }
  .numbers dd { font-size: 1.45rem; }
  .roomy { display: none; }
  th, td { padding-right: .5rem; }
  table { font-size: .875rem; }
  thead th { font-size: .8rem; }
  .stacked tr { display: grid; grid-template-columns: minmax(0, 1fr) auto; border-bottom: 1px solid var(--line); }
  .stacked th, .stacked td { border-bottom: 0; }
  .stacked td:last-child { grid-column: 1 / -1; padding-top: 0; }
  .stacked thead th:last-child { display: none; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --soft: #fff; --text: #000; --quiet: #444; --line: #bbb; --track: #ddd; --bad-soft: #fff;
    --accent: #0b6272; --present: #8fbcc4; --running: #4d94a1; --bad: #b3261e; --doubtful: #8a5a00; --mark: #d98e04;
    --grey: #9aa5b0;
  }
  @page { margin: 16mm; }
  html { font-size: 10pt; }
  main, footer { max-width: none; padding-left: 0; padding-right: 0; }
  main { padding-top: 0; }
  section { margin-top: 1.75rem; padding-top: 1.25rem; }
  rect, .swatch, .bar { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  figure, tr, .alarm, .numbers { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  thead { display: table-header-group; }
  tfoot { display: table-row-group; }
  .numbers dd { font-size: 1.35rem; }
  .numbers { grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); }
  .wide { overflow: visible; }
}
"""


def source_of(text: str) -> str:
    """Return how a Content Security Policy names an inline style sheet or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


# --- additions for the live page ----------------------------------------------------------------------------------


STYLE_SHEET = (
    STYLE
    + """
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: .15rem; }
nav { max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1.25rem;
  align-items: baseline; font-size: .95rem; }
nav .live { margin-left: auto; color: var(--quiet); }
nav .live::before { content: ""; display: inline-block; width: .55rem; height: .55rem; margin-right: .45rem;
  border-radius: 50%; background: var(--grey); }
nav .live.on::before { background: var(--accent); }
nav .live.off { color: var(--bad); }
nav .live.off::before { background: var(--bad); }
nav + main { padding-top: 1.5rem; }
.pace { margin: 2.25rem 0 0; padding: 1.25rem 1.4rem 1.4rem; background: var(--soft); border-radius: .75rem; }
.pace dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1rem 2rem; margin-top: 0; }
.pace dd { font-size: 1.25rem; font-weight: 600; }
.pace .bar { margin: 0 0 1.1rem; height: .7rem; }
.controls { display: flex; flex-wrap: wrap; gap: .9rem 1.5rem; align-items: end; }
.controls form, .inline { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end; }
.inline { margin-top: .6rem; font-size: .9rem; gap: .5rem 1rem; align-items: center; }
label { display: grid; gap: .15rem; font-size: .85rem; color: var(--quiet); }
input, button { font: inherit; min-height: 2.75rem; border-radius: .5rem; }
input { width: 7rem; padding: .3rem .7rem; color: var(--text); background: var(--page);
  border: 1px solid var(--quiet); }
button { padding: .3rem 1.1rem; border: 1px solid var(--accent); background: transparent; color: var(--accent);
  font-weight: 600; cursor: pointer; }
button:hover { background: var(--accent); color: var(--on-accent); }
button:disabled { opacity: .5; cursor: progress; }
.inline button { min-height: 2.75rem; }
#said { min-height: 1.6rem; margin: .8rem 0 0; }
.crumbs { margin: 0 0 .5rem; color: var(--quiet); }
.pages { display: flex; gap: 1.5rem; margin-top: 1.25rem; }
main > h1 { overflow-wrap: anywhere; margin-bottom: 1rem; font-size: 1.5rem; }
th code { overflow-wrap: anywhere; }
h1 code { font-size: .8em; }
@media print { nav, .controls, .inline, #said { display: none; } }
"""
)

SCRIPT = """\
"use strict";
(() => {
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const show = (element, text, kind) => {
    if (element) { element.textContent = text; element.className = element.dataset.kind + " " + kind; }
  };

  // Sections come as the server wrote them, every text escaped; whoever stands in a table stays there.
  const put = (id, html) => {
    const part = document.getElementById(id);
    if (!part) return;
    const stops = () => [...part.querySelectorAll("a, button, input, [tabindex]")];
    const at = stops().indexOf(document.activeElement);
    part.innerHTML = html;
    if (at >= 0 && stops()[at]) stops()[at].focus({preventScroll: true});
  };

  if (document.getElementById("pace")) {
    const events = new EventSource("/events");
    events.addEventListener("parts", (event) => {
      for (const [id, html] of Object.entries(JSON.parse(event.data))) put(id, html);
      show(live, "live", "on");
    });
    events.addEventListener("problem", (event) => show(live, JSON.parse(event.data), "off"));
    events.onerror = () => show(live, events.readyState === EventSource.CLOSED
      ? "ended; start the command again" : "no connection; trying again", "off");
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    event.preventDefault();
    const button = event.submitter;
    const body = new URLSearchParams(new FormData(form, button));
    if (button) button.disabled = true;
    try {
      const answer = await fetch(form.action, {method: "POST", headers: {Accept: "application/json"}, body});
      const told = await answer.json();
      show(said, told.message, told.ok ? "" : "bad");
    } catch {
      show(said, "The order did not arrive.", "bad");
    } finally {
      if (button) button.disabled = false;
    }
  });
})();
"""
