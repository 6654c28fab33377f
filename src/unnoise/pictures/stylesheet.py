"""The look of a page."""

CSS = """\
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2630; --muted: #5f6b77; --rule: #e3e8ed; --wash: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e4e8ec; --muted: #9aa5b1; --rule: #2c343d; --wash: #1d232a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
p, ul, h1, h2, h3 { max-width: 42rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3rem 0 0.6rem; }
h3 { font-size: 1.08rem; line-height: 1.35; margin: 2rem 0 0.4rem; }
h1, h2, h3, p, li, figcaption { overflow-wrap: break-word; }
p, ul { margin: 0 0 1rem; }
ul { padding-left: 1.3rem; }
.subtitle { color: var(--muted); font-size: 1.1rem; margin: 0.5rem 0 2rem; }
figure { margin: 1.5rem 0; }
img { display: block; width: calc(var(--width) + 18px); max-width: 100%; height: auto; padding: 8px;
  background: #ffffff; border: 1px solid var(--rule); border-radius: 8px; }
.pixelated { image-rendering: pixelated; }
figcaption { color: var(--muted); font-size: 0.9rem; line-height: 1.45; margin-top: 0.6rem; max-width: 42rem; }
.columns { display: flex; flex-wrap: wrap; gap: 1.25rem; margin: 1.5rem 0; align-items: flex-start; }
.columns figure { margin: 0; width: calc(var(--width) + 18px); max-width: 100%; }
.columns figcaption { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.95rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 1.1rem 0.4rem 0; text-align: left; border-bottom: 1px solid var(--rule); }
th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
.right { text-align: right; white-space: nowrap; }
code, pre { font: 0.88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { background: var(--wash); padding: 0.1em 0.3em; border-radius: 4px; }
pre { background: var(--wash); padding: 0.9rem 1.1rem; border-radius: 8px; overflow-x: auto; margin: 1rem 0 1.5rem; }
pre code { background: none; padding: 0; font-size: 1em; }
@media (max-width: 480px) {
  body { font-size: 16px; }
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.6rem; }
  figure { overflow-x: auto; }
  figure img { width: min(calc(var(--width) + 18px), max(100%, var(--width) - 300px)); max-width: none; }
  figcaption { position: sticky; left: 0; }
}
@media print { body { background: #ffffff; } figure, pre, table { break-inside: avoid; } }
"""
