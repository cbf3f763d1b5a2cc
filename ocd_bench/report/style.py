"""Style sheet and script of the HTML report. The page loads no other file, so it works offline and on a phone."""

import re

_LIGHT = """--page:#ffffff;--text:#1b1f24;--quiet:#57606a;--rule:#d0d7de;--band:#f6f8fa;--link:#0550ae;
--better:#116329;--worse:#a40e26;--dot:#0550ae;--s0:#0550ae;--s1:#953800;--s2:#116329;--s3:#8250df;--s4:#57606a;--s5:#a40e26;color-scheme:light;"""
_DARK = """--page:#0d1117;--text:#e6edf3;--quiet:#9da7b3;--rule:#3d444d;--band:#161b22;--link:#79c0ff;
--better:#56d364;--worse:#ff7b72;--dot:#79c0ff;--s0:#79c0ff;--s1:#ffa657;--s2:#56d364;--s3:#d2a8ff;--s4:#9da7b3;--s5:#ff7b72;color-scheme:dark;"""

PLOTS = """\
svg{display:block;width:100%;max-width:35rem;height:auto;margin:auto}svg text{fill:var(--text);font-size:12px}
svg .small{font-size:11px;fill:var(--quiet)}.axis{stroke:var(--quiet)}.grid{stroke:var(--rule);stroke-opacity:.5}
.zero{stroke:var(--quiet);stroke-dasharray:4 3}.dot,.bar,.point{fill:var(--dot)}.point{fill-opacity:.6}
.whisker{stroke:var(--dot);stroke-width:2.5}.dot.better{fill:var(--better)}.whisker.better{stroke:var(--better)}
.dot.oracle{fill:var(--quiet)}.whisker.oracle{stroke:var(--quiet)}.bar.oracle{fill:var(--quiet)}.leader{stroke:var(--rule)}
.dot.worse{fill:var(--worse)}.whisker.worse{stroke:var(--worse)}.line{fill:none;stroke-width:2}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1)}.s2{stroke:var(--s2)}.s3{stroke:var(--s3)}.s4{stroke:var(--s4)}.s5{stroke:var(--s5)}
"""
"""Style of the plots, by class."""

CSS = (
    f"""
:root{{{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_DARK}}}}}
:root[data-theme=dark]{{{_DARK}}}
"""
    + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:96rem;padding:1rem;background:var(--page);color:var(--text);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header{display:flex;gap:1rem;align-items:start;justify-content:space-between}
h1{font-size:1.5rem;margin:0}h2{font-size:1.25rem;margin:2.5rem 0 .5rem}h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
p,ul,dl{margin:.5rem 0}ul{padding-left:1.25rem}a{color:var(--link)}
.quiet,figcaption,caption{color:var(--quiet);font-size:.9rem}
button{font:inherit;color:inherit;background:none;border:1px solid var(--rule);border-radius:.4rem;
padding:.25rem .6rem;cursor:pointer}
button:focus-visible,a:focus-visible,summary:focus-visible,
.scroll:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.scroll{position:relative;overflow-x:auto;border:1px solid var(--rule);border-radius:.4rem}
table{border-collapse:collapse;width:100%;font-size:.84rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.5rem .6rem}
caption span{display:inline-block;position:sticky;left:.6rem;max-width:calc(100vw - 4rem)}
th,td{padding:.3rem .25rem;border-top:1px solid var(--rule);text-align:right;white-space:nowrap}
th[scope=row],thead th:first-child{text-align:left;position:sticky;left:0;background:var(--page);z-index:1}
summary{cursor:pointer;margin-top:1rem;color:var(--link)}
td.words{text-align:left;white-space:normal;color:var(--quiet)}
td.words span{display:block;max-width:min(58vw,45rem)}td.failed{color:var(--worse)}
thead th,thead th:first-child{background:var(--band)}
thead th{white-space:normal;vertical-align:bottom}thead button{border:0;padding:0;font-weight:inherit;text-align:inherit}
thead button::after{content:"\\2195";opacity:.5;padding-left:.3em}
th[aria-sort=ascending] button::after{content:"\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\2193";opacity:1}
td.better,td.worse{font-weight:700}td.better{color:var(--better)}td.worse{color:var(--worse)}
tr.oracle td,tr.oracle th{font-style:italic;font-weight:400;color:var(--quiet)}
tbody+tbody tr:first-child>*{border-top:2px solid var(--quiet)}.folded b{font-weight:500}
form{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;align-items:center;margin:1rem 0;padding:.5rem .7rem;
background:var(--band);border-radius:.4rem}
form[hidden]{display:none}input[type=search]{font:inherit;color:inherit;background:var(--page);border:1px solid var(--quiet);
border-radius:.3rem;padding:.15rem .4rem;width:11rem;max-width:100%}
input:focus-visible{outline:2px solid var(--link);outline-offset:1px}
.nocosts .cost,.off{display:none}.more{margin:.2rem 0;text-align:right}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));align-items:start;gap:1rem;margin-top:1rem}
figcaption{margin-top:.5rem}
figure{margin:0;border:1px solid var(--rule);border-radius:.4rem;padding:.6rem}
.media{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:1rem;align-items:start}
.media .picture,.media .text{grid-column:1/-1}img{display:block;max-width:100%;height:auto}
.sound img{width:100%;height:6rem;background:#000}audio{display:block;width:100%;height:2.5rem;margin-top:.4rem}
pre{margin:0;max-height:24rem;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}
"""
    + PLOTS
    + """
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
@media print{form,.more,button{display:none}.scroll{overflow:visible}}
"""
)

SCRIPT = """
const root=document.documentElement,system=matchMedia('(prefers-color-scheme:dark)');
const dark=()=>root.dataset.theme?root.dataset.theme=='dark':system.matches;
const toggle=document.getElementById('theme'),name=()=>{toggle.textContent=dark()?'Light theme':'Dark theme'};
toggle.hidden=false;name();toggle.onclick=()=>{root.dataset.theme=dark()?'light':'dark';name()};
for(const button of document.querySelectorAll('thead button'))button.onclick=()=>{
 const head=button.parentNode,body=head.closest('table').tBodies[0],column=head.cellIndex;
 const up=head.getAttribute('aria-sort')!='ascending';
 for(const other of head.parentNode.children)other.removeAttribute('aria-sort');
 head.setAttribute('aria-sort',up?'ascending':'descending');
 const value=row=>{const cell=row.cells[column];return cell&&cell.dataset.v!==undefined?cell.dataset.v:null};
 const order=(a,b)=>{const x=value(a),y=value(b);if(x===null||y===null)return (x===null)-(y===null);
  const d=isNaN(x)||isNaN(y)?x.localeCompare(y):x-y;return up?d:-d};
 body.append(...[...body.rows].sort(order));
};
const form=document.getElementById('filter'),wanted=document.getElementById('wanted'),gains=document.getElementById('gains');
const costs=document.getElementById('costs'),rows=[...document.querySelectorAll('[data-m]')];form.hidden=false;
const wide=()=>{for(const box of document.querySelectorAll('.scroll'))
 box.previousElementSibling.hidden=box.scrollWidth<=box.clientWidth+1};
const filter=()=>{
 const parts=wanted.value.toLowerCase().split(',').map(part=>part.trim()).filter(Boolean);let count=0;
 for(const row of rows){
  const named=!parts.length||parts.some(part=>row.dataset.m.toLowerCase().includes(part));
  const told=!gains.checked||row.tagName!='TR'||row.dataset.m=='base'||row.querySelector('.better,.worse');
  row.classList.toggle('off',!(named&&told));count+=row.tagName=='TR'&&named&&!!told}
 document.body.classList.toggle('nocosts',!costs.checked);
 document.getElementById('shown').textContent=parts.length||gains.checked?count+' rows shown':'';wide()};
wanted.oninput=gains.onchange=costs.onchange=filter;form.onsubmit=event=>{event.preventDefault();filter()};
addEventListener('resize',wide);wide();
"""


def for_files() -> str:
    """The style of the plots in the light theme, with colours in place of variables, which few programs know."""
    colours = dict(re.findall(r"(--\w+):(#\w+);", _LIGHT))
    rules = PLOTS.partition("svg text")[2]
    return re.sub(r"var\((--\w+)\)", lambda found: colours[found[1]], f"text{rules}".replace("svg .small", ".small"))
