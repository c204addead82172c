// Lines over steps or time. Non-finite values are gaps, and are counted in a note; the legend has the values under the
// pointer; whoever uses several charts zooms them together, and keeps the zoom in the address.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import uplotStyles from "uplot/dist/uPlot.min.css";
import { durationText, numberText, themeColour, timeText, timeZone, useDark, useLanguage } from "../host";
import { t, tn } from "../strings";
import { colourOf } from "./colours";
import styles from "./chart.css";

export interface Line {
  /** What tells the lines of a chart apart. */
  id: string;
  label: string;
  /** Number of its colour; see colours.ts. */
  colour: number;
  x: readonly number[];
  /** NaN and infinities are gaps, and so is null. */
  y: readonly (number | null)[];
  /** Its end pulses: more of it is to come. */
  running?: boolean;
  /** A straight line that the others are compared with, such as a limit. */
  dashed?: boolean;
}

export type XKind = "step" | "time" | "relative";
export type Range = readonly [number, number];

export interface ChartProps {
  title: string;
  lines: readonly Line[];
  x?: XKind;
  height?: number;
  log?: boolean;
  /** Weight of what came before, from 0 (none) to below 1. */
  smoothing?: number;
  /** Charts with the same one show the same place under the pointer. */
  sync?: string;
  range?: Range | null;
  onRange?: (range: Range | null) => void;
  format?: (value: number | null) => string;
  /** Whether values begin at nought. */
  fromZero?: boolean;
  legend?: boolean;
  /** Id of a line that is pointed at elsewhere: the others fade. */
  highlit?: string;
  /** Called with the id of the line that is pointed at, or an empty text. */
  onHighlight?: (id: string) => void;
}

const LARGEST = 1e150; // Beyond this the room around the lines would overflow.
const RAW_ALPHA = "40";

interface Column {
  line: Line;
  values: (number | null | undefined)[];
  raw: boolean;
}

interface Prepared {
  data: uPlot.AlignedData;
  columns: Column[];
  gaps: number;
  notPositive: number;
  empty: boolean;
}

export function Chart(props: ChartProps) {
  const { lines, x = "step", log = false, smoothing = 0, height = 220, legend = true } = props;
  const format = props.format ?? ((value: number | null) => numberText(value, 5));
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [at, setAt] = useState<number | null>(null);
  const dark = useDark();
  const locale = useLanguage();
  const shown = useMemo(() => lines.filter((line) => !hidden.has(line.id)), [lines, hidden]);
  const prepared = useMemo(() => prepare(shown, log, smoothing), [shown, log, smoothing]);

  // What the hooks of a plot read, so that new data need no new plot.
  const now = useRef({ ...props, prepared });
  now.current = { ...props, prepared };

  const structure = JSON.stringify([
    prepared.columns.map(({ line, raw }) => [line.id, line.colour, raw, line.dashed]),
    x, log, height, dark, locale, props.sync, props.fromZero, prepared.empty,
  ]);

  useLayoutEffect(() => {
    const host = box.current;
    if (!host || now.current.prepared.empty) return;
    const made = new uPlot(options(host.clientWidth || 400, now, { x, log, height, dark }, setAt), [[]], host);
    plot.current = made;
    const observer = new ResizeObserver(() => {
      if (host.clientWidth && host.clientWidth !== made.width) made.setSize({ width: host.clientWidth, height });
    });
    observer.observe(host);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
      setAt(null);
    };
    // Not all that it uses is a dependency: the structure has what a plot is made of.
  }, [structure]);

  useEffect(() => {
    plot.current?.setData(prepared.data);
  }, [prepared, structure, props.range?.[0], props.range?.[1]]);

  useEffect(() => {
    if (props.highlit === undefined) return;
    const index = now.current.prepared.columns.findIndex(({ line, raw }) => line.id === props.highlit && !raw);
    plot.current?.setSeries(index < 0 ? null : index + 1, { focus: true });
  }, [props.highlit, structure]);

  const toggle = (id: string) =>
    setHidden((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    });

  const xs = prepared.data[0];
  const place = at !== null ? xs[at] : undefined;
  const move = (by: number) => {
    const next = Math.min(Math.max((at ?? (by > 0 ? -1 : xs.length)) + by, 0), xs.length - 1);
    const u = plot.current;
    const value = xs[next];
    if (!u || value === undefined) return;
    u.setCursor({ left: u.valToPos(value, "x"), top: u.over.clientHeight / 2 });
  };
  const texts = lines
    .filter((line) => !line.dashed && !hidden.has(line.id))
    .slice(0, 12)
    .map((line) => `${line.label}: ${format(valueAt(prepared, line, at)) || t("chart.noValue")}`);
  const where = place === undefined ? t("chart.newest") : xText(x, place);

  return (
    <figure className="nemo-chart" aria-label={props.title}>
      <style href="nemo-chart" precedence="default">
        {uplotStyles + styles}
      </style>
      {prepared.empty ? (
        <p className="muted">{lines.length && prepared.gaps + prepared.notPositive ? t("chart.noneFinite") : t("chart.none")}</p>
      ) : (
        <div
          ref={box}
          className="nemo-chart-plot"
          style={{ height }}
          role="slider"
          tabIndex={0}
          aria-label={props.title}
          aria-valuemin={xs[0]}
          aria-valuemax={xs[xs.length - 1]}
          aria-valuenow={place ?? xs[xs.length - 1]}
          aria-valuetext={`${where}; ${texts.join("; ")}`}
          onKeyDown={(event) => {
            const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: 25, PageDown: -25 }[event.key];
            if (by) {
              event.preventDefault();
              move(by);
            } else if (event.key === "Escape") props.onRange?.(null);
          }}
        />
      )}
      {legend && (
        <ul className="nemo-legend">
          {lines.map((line) => (
            <li key={line.id}>
              <button type="button" aria-pressed={!hidden.has(line.id)} onClick={() => toggle(line.id)} title={line.label}>
                <span className="nemo-swatch" style={{ background: colourOf(line.colour, dark) }} />
                <span className="name">{line.label}</span>
                <span className="value">{format(valueAt(prepared, line, at))}</span>
              </button>
            </li>
          ))}
          {place !== undefined && <li className="muted">{xText(x, place)}</li>}
        </ul>
      )}
      {(prepared.gaps > 0 || (log && prepared.notPositive > 0)) && (
        <figcaption className="nemo-chart-notes">
          {[
            prepared.gaps > 0 && tn("chart.gaps", prepared.gaps),
            log && prepared.notPositive > 0 && tn("chart.notPositive", prepared.notPositive),
          ]
            .filter(Boolean)
            .join(" ")}
        </figcaption>
      )}
    </figure>
  );
}

export function xText(kind: XKind, value: number): string {
  if (kind === "time") return timeText(value);
  return kind === "relative" ? durationText(value) : t("chart.step", { step: numberText(value, 15) });
}

/** Smoothes a line as TensorBoard does: each value has its part of those before, without a pull to nought at first. */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  let [sum, count] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + (1 - weight) * value;
    count += 1;
    return sum / (1 - weight ** count);
  });
}

function prepare(lines: readonly Line[], log: boolean, smoothing: number): Prepared {
  let [gaps, notPositive] = [0, 0];
  const columns: Omit<Column, "values">[] = [];
  const tables = lines.map((line) => {
    const points = new Map<number, number | null>(); // Of several at one place, the last.
    line.x.forEach((place, index) => {
      const value = line.y[index] ?? null;
      if (!Number.isFinite(place)) return;
      const fits = value !== null && Math.abs(value) <= LARGEST; // False for NaN.
      if (!fits) gaps += 1;
      else if (log && value <= 0) notPositive += 1;
      points.set(place, fits && (!log || value > 0) ? value : null);
    });
    const xs = [...points.keys()].sort((one, other) => one - other);
    const raw = xs.map((place) => points.get(place) ?? null);
    columns.push({ line, raw: smoothing > 0 && !line.dashed });
    if (!smoothing || line.dashed) return [xs, raw] as uPlot.AlignedData;
    columns.push({ line, raw: false });
    return [xs, raw, smooth(raw, smoothing)] as uPlot.AlignedData;
  });
  const data = tables.length ? uPlot.join(tables) : ([[]] as unknown as uPlot.AlignedData);
  const all = columns.map((column, index) => ({ ...column, values: (data[index + 1] ?? []) as Column["values"] }));
  const empty = !all.some(({ values }) => values.some((value) => value != null));
  return { data, columns: all, gaps, notPositive, empty };
}

/** Returns a line's value at a place, or the nearest one before; the newest one without a place. */
function valueAt({ columns }: Prepared, line: Line, at: number | null): number | null {
  const column = columns.find((each) => each.line.id === line.id && !each.raw);
  if (!column) return null;
  for (let index = at ?? column.values.length - 1; index >= 0; index--) {
    const value = column.values[index];
    if (value != null) return value;
    if (value === null && at !== null) return null;
  }
  return null;
}

function options(
  width: number,
  now: { readonly current: ChartProps & { prepared: Prepared } },
  look: { x: XKind; log: boolean; height: number; dark: boolean },
  setAt: (index: number | null) => void,
): uPlot.Options {
  const { columns } = now.current.prepared;
  const [ink, grid] = [themeColour("fg.muted") || "#888", themeColour("border") || "#8884"];
  const zone = timeZone();
  const axis: uPlot.Axis = {
    stroke: ink,
    font: "12px system-ui, sans-serif",
    grid: { stroke: grid, width: 1 },
    ticks: { stroke: grid, width: 1, size: 4 },
  };
  let dots: HTMLElement[] = [];
  const sync = now.current.sync;
  return {
    width,
    height: look.height,
    padding: [10, 14, 0, 0],
    legend: { show: false },
    focus: { alpha: 0.3 },
    cursor: {
      y: false,
      focus: { prox: 24 },
      drag: { x: true, y: false, setScale: false },
      points: { size: 7 },
      ...(sync ? { sync: { key: sync, setSeries: false } } : {}),
      bind: {
        // A double click shows all again.
        dblclick: () => () => {
          now.current.onRange?.(null);
          return null;
        },
      },
    },
    scales: {
      x: {
        time: look.x === "time",
        range: (_, low, high) => {
          const { range } = now.current;
          if (range && range[1] > range[0]) return [range[0], range[1]];
          return high > low ? [low, high] : [(low ?? 0) - 0.5, (high ?? 0) + 0.5];
        },
      },
      y: look.log
        ? { distr: 3 }
        : now.current.fromZero
          ? { range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? high * 1.05 : 1] }
          : {},
    },
    ...(zone ? { tzDate: (seconds: number) => uPlot.tzDate(new Date(seconds * 1000), zone) } : {}),
    axes: [
      {
        ...axis,
        size: 30,
        ...(look.x === "time"
          ? {}
          : look.x === "relative"
            ? { values: (_: uPlot, places: number[]) => places.map(clockText), incrs: SECONDS, space: 70 }
            : { values: (_: uPlot, places: number[]) => places.map((place) => numberText(place, 6)) }),
      },
      {
        ...axis,
        size: 62,
        values: (_, places) => places.map((value) => (value == null ? "" : (now.current.format ?? shortText)(value))),
        ...(look.log ? { filter: (_: uPlot, places: number[]) => places.map((value) => (isRound(value) ? value : null)) } : {}),
      },
    ],
    series: [
      {},
      ...columns.map(({ line, raw }): uPlot.Series => {
        const colour = colourOf(line.colour, look.dark);
        return {
          label: line.label,
          stroke: raw ? colour + RAW_ALPHA : colour,
          width: line.dashed ? 1 : raw ? 1 : 1.75,
          ...(line.dashed ? { dash: [6, 4] } : line.colour >= 8 ? { dash: [10, 4, 2, 4] } : {}),
          points: { size: 5, ...(raw || line.dashed ? { show: false } : {}) },
        };
      }),
    ],
    hooks: {
      setCursor: [(u) => setAt(u.cursor.idx ?? null)],
      setSeries: [
        (_, index) => {
          now.current.onHighlight?.(index ? (now.current.prepared.columns[index - 1]?.line.id ?? "") : "");
        },
      ],
      setSelect: [
        (u) => {
          if (u.select.width < 4) return;
          const [low, high] = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          now.current.onRange?.([low, high]);
        },
      ],
      draw: [
        (u) => {
          dots.forEach((dot) => dot.remove());
          dots = now.current.prepared.columns.flatMap(({ line, values, raw }) => {
            if (!line.running || raw) return [];
            const last = values.findLastIndex((value) => value != null);
            const [place, value] = [u.data[0][last], values[last]];
            const { min = -Infinity, max = Infinity } = u.scales.x ?? {};
            if (place === undefined || value == null || place < (min ?? -Infinity) || place > (max ?? Infinity)) return [];
            const dot = document.createElement("i");
            dot.className = "nemo-chart-dot";
            dot.style.cssText = `left:${u.valToPos(place, "x")}px;top:${u.valToPos(value, "y")}px;background:${colourOf(line.colour, look.dark)}`;
            u.over.append(dot);
            return [dot];
          });
        },
      ],
    },
  };
}

// Distances between the labels of an axis that counts seconds.
const SECONDS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400,
  28800, 43200, 86400, 172800, 432000, 864000, 1728000, 4320000, 8640000,
];

/** Returns a time since the start, short enough for an axis: "0.5 s", "1:40", "2:05:00", "3 d 4 h". */
function clockText(seconds: number): string {
  if (Math.abs(seconds) < 60 || seconds >= 86400) return durationText(seconds);
  const parts = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), Math.round(seconds % 60)];
  const [first, ...others] = parts[0] ? parts : parts.slice(1);
  return [first, ...others.map((part) => String(part).padStart(2, "0"))].join(":");
}

const shortText = (value: number) => numberText(value, 5);

function isRound(value: number): boolean {
  const digit = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
  return [1, 2, 5].some((each) => Math.abs(digit - each) < 1e-6);
}
