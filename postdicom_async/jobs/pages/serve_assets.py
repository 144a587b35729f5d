"""What the live page has besides the report's style sheet: some more style, and the one script. Pure."""

from __future__ import annotations

from postdicom_async.jobs.pages.page_style import STYLE

__all__ = ["SCRIPT", "STYLE_SHEET"]

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
