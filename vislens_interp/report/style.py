"""The look of the HTML pages: one style sheet, inline, for light and dark screens and any width."""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
"""
"""The policy forbids the page to load anything: whoever is sent a report is not seen opening it."""

# Okabe and Ito's colours, darker on white and lighter on black, so that text in them has a contrast of 4.5.
STYLE = """
:root{--page:#fff;--panel:#f5f5f3;--text:#1c1c1c;--soft:#595959;--edge:#cfcfcb;
--up:#a84300;--down:#0066a1;--custom:#00694d;--plain:#5e5e5e;--warn:#b00020;--bar:#8f98a3;
--h0:#08519c;--h1:#3182bd;--h2:#6baed6;--h3:#b5d3e8;--h4:#e4e4e0;--h5:#f7cfae;--h6:#f39b54;--h7:#d9601a;--h8:#9c3a00}
@media(prefers-color-scheme:dark){:root{--page:#141517;--panel:#1e2023;--text:#ececea;--soft:#b0b0ac;--edge:#43464b;
--up:#ff9c57;--down:#6fbdf2;--custom:#4fd0a4;--plain:#a8a8a8;--warn:#b00020;--bar:#6d7783;
--h0:#8fd0ff;--h1:#5aa9e0;--h2:#3a7db0;--h3:#2d5470;--h4:#3a3c3f;--h5:#6b4428;--h6:#a85e26;--h7:#e0822f;--h8:#ffb877}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.6rem;line-height:1.2;margin:.2rem 0 .4rem}
h2{font-size:1.2rem;margin:0 0 .5rem}
h3{font-size:1rem;margin:0 0 .4rem}
p{margin:.3rem 0 .7rem}
.soft,footer,figcaption{color:var(--soft)}
.small,footer,figcaption{font-size:.875rem}
.mark{font-size:.875rem;letter-spacing:.04em;color:var(--soft);margin:0}
.warning{background:var(--warn);color:#fff;border-radius:.4rem;padding:.7rem 1rem;margin:.8rem 0}
.warning strong{display:block;font-size:1.1rem}
section{margin:1.75rem 0}
a{color:var(--down)}
:focus-visible{outline:3px solid var(--down);outline-offset:2px}
.increase{--own:var(--up)}.decrease{--own:var(--down)}.custom{--own:var(--custom)}.unedited,.reference{--own:var(--plain)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.8rem;margin:.8rem 0;padding:0}
.fact{background:var(--panel);border-left:.35rem solid var(--own,var(--edge));border-radius:.3rem;padding:.6rem .8rem}
.fact b{display:block;font-size:1.35rem;line-height:1.25}
.sets{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,27rem),1fr));gap:1rem}
.set{background:var(--panel);border-radius:.4rem;padding:.6rem;margin:0}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(4.4rem,1fr));gap:.5rem}
.shot{margin:0;min-width:0}
.shot img{display:block;width:100%;height:auto;border:3px solid var(--own,var(--edge));border-radius:.2rem}
.pixels{image-rendering:pixelated}
.shot figcaption{line-height:1.3;margin-top:.25rem;font-size:.8125rem;color:var(--text)}
.shot .what,.shot .change{font-weight:600;display:block;white-space:nowrap}
.shot .what{color:var(--own,var(--text))}
@media(max-width:30rem){.shot figcaption{font-size:.75rem}.set{padding:.5rem}.set .row{gap:.35rem}}
.gallery{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:.5rem}
@media(min-width:48rem){.gallery{grid-template-columns:repeat(10,minmax(0,1fr))}}
.sets .gallery{grid-template-columns:repeat(5,minmax(0,1fr))}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1.25rem;align-items:start}
.chartbox{margin:0}
.chartbox figcaption{margin-top:.4rem}
.chart{display:block;width:100%;max-width:34rem;height:auto;font:12px system-ui,sans-serif}
.tick{fill:var(--soft);font-size:11px}.label{fill:var(--own,var(--text));font-size:12px}
.bar{fill:var(--bar)}.grid{stroke:var(--edge);stroke-width:.6}.edge{stroke:var(--soft);stroke-width:1}
.zero{stroke:var(--soft);stroke-width:1;stroke-dasharray:4 3}
.dot{fill:var(--own);fill-opacity:.65}.mean{stroke:var(--own);stroke-width:3}
.band{fill:var(--down);fill-opacity:.2}.one{fill:none;stroke:var(--plain);stroke-opacity:.45;stroke-width:.8}
.average{fill:none;stroke:var(--down);stroke-width:2.2}.averages{fill:var(--down)}
.arrow{stroke:var(--own);stroke-width:1.3;stroke-opacity:.9}.head{fill:var(--own)}
.start{fill:var(--page);stroke:var(--text);stroke-width:1.4}
.cross{stroke:var(--text);stroke-width:3;fill:none}.rim{stroke:var(--page);stroke-width:7;fill:none}
.modelabel{fill:var(--text);font-weight:700;paint-order:stroke;stroke:var(--page);stroke-width:3}
.h0{fill:var(--h0)}.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}.h4{fill:var(--h4)}
.h5{fill:var(--h5)}.h6{fill:var(--h6)}.h7{fill:var(--h7)}.h8{fill:var(--h8)}
table{border-collapse:collapse;font-size:.875rem;width:100%}
.settings{table-layout:fixed}.settings th{width:50%}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--edge);vertical-align:top}
th{font-weight:600;overflow-wrap:normal}th code{overflow-wrap:anywhere;font-weight:400}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
details{margin:.5rem 0}
summary{cursor:pointer;padding:.3rem 0;font-weight:600}
code{font:.85em ui-monospace,monospace}
.unit{border-top:1px solid var(--edge);padding-top:1rem;margin:1rem 0}
.strips{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:.8rem}
.strip{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,7rem);gap:.4rem}
.pill{display:inline-block;background:var(--warn);color:#fff;border-radius:.8rem;padding:0 .6rem;font-size:.8125rem}
footer{border-top:1px solid var(--edge);padding-top:.8rem;padding-bottom:2rem}
@media print{.set,.unit,.chartbox{break-inside:avoid}}
"""


def page_head(title: str) -> str:
    """Everything before the body; the title has to be escaped."""
    return HEAD.format(title=title, style=STYLE.strip().replace("\n", ""))
