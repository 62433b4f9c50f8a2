"""The style of a study's report, after the one that all pages share."""

from __future__ import annotations

from typing import Final

REPORT_STYLE: Final = """
.over { color: var(--faint); font-size: 0.8rem; letter-spacing: 0.06em; margin: 0;
  text-transform: uppercase; }
.lead { font-size: 1.05rem; color: var(--faint); }
.state { display: inline-block; vertical-align: middle; font-size: 0.8rem; font-weight: 600;
  letter-spacing: 0; padding: 0.1rem 0.6rem; margin-left: 0.4rem; border-radius: 99px;
  background: var(--soft); }
.state.open, .badge { background: var(--warn-card); color: var(--warn); }
.badge { font-size: 0.75rem; padding: 0.05rem 0.4rem; border-radius: 4px; white-space: nowrap; }
.sum { display: grid; grid-template-columns: 7rem minmax(0, 1fr); gap: 0.9rem 1.25rem;
  margin: 1.25rem 0 1rem; }
.sum dt { color: var(--faint); font-size: 0.875rem; padding-top: 0.1rem; }
.sum dd { margin: 0; } .sum p { margin: 0 0 0.3rem; max-width: 50rem; }
.sum .found p { font-size: 1.05rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; font-size: 0.875rem; }
nav a { text-decoration: none; overflow-wrap: anywhere; }
nav a:hover { text-decoration: underline; }
.row { display: grid; grid-template-columns: minmax(0, 12rem) minmax(0, 1fr)
  var(--value, 7rem);
  gap: 0 1rem; align-items: center; }
.row:nth-child(odd of .data) { background: color-mix(in srgb, var(--card) 60%, transparent); }
.wide-values { --value: 14.5rem; }
.name { overflow-wrap: anywhere; font-size: 0.875rem; line-height: 1.25; padding: 0.1rem 0; }
.name.base { font-weight: 600; }
.value { font-size: 0.8125rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.value small { color: var(--faint); font-size: 0.75rem; }
svg { display: block; overflow: visible; } .plot { width: 100%; height: 100%; overflow: hidden; }
.tick { fill: var(--faint); font-size: 11px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
.majority { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 3 3; }
.baseline { stroke: var(--ink); stroke-width: 1; opacity: 0.45; }
.interval { stroke: var(--soft); stroke-width: 9; }
.items { stroke: var(--line); stroke-width: 3; } .between { stroke: var(--accent);
  stroke-width: 3; } .between.none, .mean.none { stroke: var(--faint); }
.beyond { fill: var(--ink); } .mean { stroke: var(--accent); stroke-width: 2.5; }
.dot { fill: var(--ink); fill-opacity: 0.55; stroke: var(--paper); stroke-width: 0.75; }
.swatches { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; margin: 0.4rem 0;
  color: var(--faint); font-size: 0.8125rem; overflow-wrap: anywhere; }
.swatches span { display: inline-flex; align-items: center; gap: 0.4rem; }
.swatches svg { width: 26px; flex: none; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr));
  gap: 1rem 1.25rem; margin: 0.5rem 0; }
.small.broad { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.small h4, .chart h4 { font-size: 0.8125rem; font-weight: 600; margin: 0 0 0.2rem;
  overflow-wrap: anywhere; line-height: 1.25; }
.chart { display: grid; grid-template-columns: auto minmax(0, 1fr); grid-template-rows: auto 6rem
  auto; gap: 0 0.35rem; min-width: 0; }
.chart.tall { grid-template-rows: auto 9rem auto; }
.chart h4 { grid-column: 1 / 3; }
.ys { display: flex; flex-direction: column; justify-content: space-between; text-align: right; }
.xs { grid-column: 2; display: flex; justify-content: space-between; }
.ys, .xs { color: var(--faint); font-size: 0.6875rem; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.frame { border-left: 1px solid var(--line); border-bottom: 1px solid var(--line); min-width: 0;
  min-height: 0; position: relative; }
.frame svg { position: absolute; inset: 0; } .over-map { pointer-events: none; }
.curve { fill: none; stroke: var(--accent); stroke-width: 1.75; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.band { fill: var(--accent); fill-opacity: 0.18; stroke: none; }
.curve.other { stroke: var(--faint); stroke-width: 1; } .band.other { fill: none; }
.cell { fill: var(--accent); shape-rendering: crispEdges; }
.outline { fill: none; stroke: var(--ink); stroke-width: 1.25; vector-effect: non-scaling-stroke; }
.spread, .selected { stroke: var(--ink); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.selected { stroke-dasharray: 2 3; }
.seed, .held { stroke: var(--ink); stroke-width: 5; stroke-linecap: round;
  vector-effect: non-scaling-stroke; }
.seed { stroke-opacity: 0.8; } .halo { stroke: var(--paper); stroke-width: 7;
  stroke-linecap: round; vector-effect: non-scaling-stroke; }
.held { stroke: var(--accent); stroke-width: 7; }
.held.second { stroke: var(--other); } .curve.second { stroke: var(--other); }
.curve.most { stroke: var(--faint); stroke-width: 1; }
.share { background: color-mix(in srgb, var(--accent) calc(0.45 * var(--share)), transparent); }
.share small { color: var(--faint); }
.plateau { fill: var(--mark); fill-opacity: 0.5; } .column { fill: var(--accent); }
.default { stroke: var(--other); stroke-width: 1.5;
  stroke-dasharray: 5 3; vector-effect: non-scaling-stroke; }
.diverged { stroke: var(--warn); stroke-width: 4; vector-effect: non-scaling-stroke; }
.whisker { stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.point { fill: var(--accent); } .area { fill: transparent; }
.change { margin: 0.75rem 0; padding-left: 0.9rem; border-left: 3px solid var(--line);
  max-width: 50rem; font-size: 0.875rem; }
.change p { margin: 0.15rem 0; max-width: none; } .change b { font-weight: 400;
  color: var(--faint); }
mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 0 0.15em; }
.get { font-size: 0.8125rem; color: var(--faint); display: flex; flex-wrap: wrap; gap: 0 1rem;
  align-items: baseline; }
.get details { flex-basis: 100%; min-width: 0; margin: 0.2rem 0; }
.warning { background: var(--warn-card); color: var(--warn); padding: 0.5rem 0.8rem;
  border-radius: 6px; max-width: 46rem; }
@media (max-width: 600px) {
  body { padding: 1rem 0.9rem 3rem; } h1 { font-size: 1.4rem; }
  .sum { grid-template-columns: minmax(0, 1fr); gap: 0.1rem; } .sum dt { margin-top: 0.6rem; }
  .row { grid-template-columns: minmax(0, 1fr) auto; padding: 0.3rem 0; }
  .row > svg, .row > .plain { grid-column: 1 / 3; grid-row: 2; }
  .value { text-align: right; max-width: 15rem; }
  .small { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 0.8rem; }
  .row.ends > .name, .row.ends > .value { display: none; }
}
@media print { .row { break-inside: avoid; } .small { grid-template-columns: repeat(3, 1fr); } }
"""
