"""The style sheet of the pages of shares: one column on a phone, rows that line up on a wide screen."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["STYLE", "STYLE_SOURCE"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f3f5f8; --card: #fff; --text: #17202c; --quiet: #56616f; --line: #dde3ea;
  --accent: #0a6570; --on-accent: #fff; --wrong: #a3231f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11161d; --card: #1b222c; --text: #e8edf3; --quiet: #a4b0be; --line: #303a47;
    --accent: #6fd0d9; --on-accent: #06282c; --wrong: #ff9b95;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
main { padding-top: 2rem; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; font-weight: 650; }
h2 { margin: 2rem 0 .6rem; font-size: 1.05rem; font-weight: 600; color: var(--quiet); }
h3 { margin: 0; font-size: 1.05rem; line-height: 1.35; font-weight: 620; }
p { margin: .35rem 0 0; }
.quiet { color: var(--quiet); }
.words { white-space: pre-line; max-width: 46rem; }
.top { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: end; justify-content: space-between; }
.top > div { flex: 1 1 16rem; min-width: 0; }
.studies { list-style: none; margin: 1.25rem 0 0; padding: 0; display: grid; gap: .75rem; }
h2 + .studies { margin-top: 0; }
.study {
  display: grid; gap: .9rem 1.5rem; padding: 1rem 1.1rem; min-width: 0;
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
}
.alias { margin: .1rem 0 0; color: var(--quiet); font-size: .95rem; }
.facts { margin: 0; display: grid; gap: .7rem 1rem; grid-template-columns: 1.9fr 1.2fr 1fr 1fr; min-width: 0; }
.facts > div { min-width: 0; }
.facts .wide { grid-column: 1 / -1; order: -1; }
dt { font-size: .78rem; color: var(--quiet); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
time { white-space: nowrap; }
.button {
  display: inline-flex; align-items: center; justify-content: center; min-height: 2.75rem; padding: .4rem 1.15rem;
  border: 1px solid var(--accent); border-radius: .55rem; background: transparent; color: var(--accent);
  font: inherit; font-weight: 600; text-decoration: none; text-align: center; cursor: pointer;
}
.button:hover, .button.main { background: var(--accent); color: var(--on-accent); }
.button.main:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.panel {
  max-width: 27rem; margin: 8vh auto 0; padding: 1.75rem 1.5rem;
  background: var(--card); border: 1px solid var(--line); border-radius: .9rem;
}
main:has(> .panel) + footer { max-width: 27rem; text-align: center; }
.panel h1 { font-size: 1.35rem; }
form { display: grid; gap: .4rem; margin-top: 1.25rem; }
label { font-weight: 600; }
input {
  width: 100%; min-height: 2.75rem; padding: .4rem .75rem; font: inherit; color: inherit;
  background: var(--page); border: 1px solid var(--quiet); border-radius: .55rem;
}
form .button { margin-top: .7rem; }
.wrong { color: var(--wrong); font-weight: 600; }
input[aria-invalid] { border-color: var(--wrong); }
.none { margin-top: 1.25rem; padding: 2rem 1rem; text-align: center; color: var(--quiet);
  border: 1px dashed var(--line); border-radius: .75rem; }
footer { margin-top: 2rem; padding-bottom: 2rem; font-size: .875rem; color: var(--quiet); }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (min-width: 56rem) {
  main { padding-top: 3rem; }
  .study { grid-template-columns: minmax(0, 14rem) minmax(0, 1fr) 8.5rem; align-items: center; }
  .facts { grid-template-columns: 7rem minmax(0, 1fr) 5.5rem 3.5rem 4rem; }
  .facts .wide { grid-column: auto; order: 0; }
}
@media print { body { background: #fff; } .button { display: none; } }
"""

STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode('ascii')}'"
"""How a Content Security Policy names this style sheet."""
