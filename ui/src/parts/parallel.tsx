// Parallel coordinates: a line for each row across several axes, on a canvas; a range can be dragged on each axis.
import { useLayoutEffect, useRef, useState, type PointerEvent } from "react";
import { themeColour, useDark } from "../host";
import { colourOf } from "./colours";

export interface ParallelAxis {
  id: string;
  label: string;
  /** The place of each row; null where it has none: its line has a gap there. */
  values: readonly (number | null)[];
  range: readonly [number, number];
  ends: readonly [string, string];
}

export interface ParallelProps {
  label: string;
  axes: readonly ParallelAxis[];
  /** Number of the colour of each row. */
  colours: readonly number[];
  /** Whether each row is in all ranges. */
  kept: readonly boolean[];
  /** The row that is pointed at, or -1. */
  highlit: number;
  onHighlight: (row: number) => void;
  brushes: Readonly<Record<string, readonly [number, number]>>;
  /** Called with a range, or null for all of the axis. */
  onBrush: (axis: string, range: readonly [number, number] | null) => void;
  onRemove: (axis: string) => void;
  removeLabel: (name: string) => string;
}

const [HEIGHT, TOP, BOTTOM, SIDE, APART] = [300, 44, 24, 80, 110];
const NEAR = 8; // Pixels from a line at which it is pointed at.
const SPAN = HEIGHT - TOP - BOTTOM;
const FEW = 60; // Lines up to which each is drawn firmly.

export function Parallel(props: ParallelProps) {
  const { axes, colours, kept, highlit, brushes } = props;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
  const [room, setRoom] = useState(0);
  const width = Math.max(room, 2 * SIDE + (axes.length - 1) * APART);
  const places = axes.map((_, index) => SIDE + (index * (width - 2 * SIDE)) / Math.max(1, axes.length - 1));

  useLayoutEffect(() => {
    const host = box.current;
    if (!host) return;
    const observer = new ResizeObserver(() => setRoom(host.clientWidth));
    observer.observe(host);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!canvas.current || !context || !room) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.current.width = width * ratio;
    canvas.current.height = HEIGHT * ratio;
    context.scale(ratio, ratio);
    draw(context, props, places, dark);
    // Not all that it uses is a dependency: the places follow from the width and the axes.
  }, [axes, colours, kept, highlit, brushes, width, dark, room]);

  const point = (event: PointerEvent) => {
    const { left, top } = event.currentTarget.getBoundingClientRect();
    props.onHighlight(nearest(props, places, event.clientX - left, event.clientY - top));
  };
  return (
    <div className="nemo-parallel" ref={box}>
      <div className="nemo-parallel-inside" style={{ width, height: HEIGHT }}>
        <canvas
          ref={canvas}
          style={{ width, height: HEIGHT }}
          role="img"
          aria-label={props.label}
          onPointerMove={point}
          onPointerLeave={() => props.onHighlight(-1)}
        />
        {axes.map((axis, index) => (
          <div key={axis.id}>
            <div className="nemo-parallel-name" style={{ left: places[index] }} title={axis.label}>
              <span>{axis.label}</span>
              <button type="button" aria-label={props.removeLabel(axis.label)} onClick={() => props.onRemove(axis.id)}>
                ✕
              </button>
            </div>
            <Brush
              axis={axis}
              left={places[index] ?? 0}
              range={brushes[axis.id]}
              onBrush={(range) => props.onBrush(axis.id, range)}
            />
          </div>
        ))}
      </div>
    </div>
  );
}

function Brush(props: {
  axis: ParallelAxis;
  left: number;
  range: readonly [number, number] | undefined;
  onBrush: (range: readonly [number, number] | null) => void;
}) {
  const { axis, left } = props;
  const [dragged, setDragged] = useState<readonly [number, number] | null>(null);
  const value = (event: PointerEvent) => {
    const { top } = event.currentTarget.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, 1 - (event.clientY - top) / SPAN));
    return axis.range[0] + share * (axis.range[1] - axis.range[0]);
  };
  const range = dragged ? ([Math.min(...dragged), Math.max(...dragged)] as const) : props.range;
  const [low, high] = range ? [heightOf(axis, range[1]), heightOf(axis, range[0])] : [0, 0];
  return (
    <div
      className="nemo-parallel-axis"
      style={{ left, top: TOP, height: SPAN }}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        setDragged([value(event), value(event)]);
      }}
      onPointerMove={(event) => dragged && setDragged([dragged[0], value(event)])}
      onPointerCancel={() => setDragged(null)}
      onPointerUp={() => {
        if (!dragged) return;
        const isClick = Math.abs(heightOf(axis, dragged[0]) - heightOf(axis, dragged[1])) < 4;
        props.onBrush(isClick ? null : [Math.min(...dragged), Math.max(...dragged)]);
        setDragged(null);
      }}
    >
      {range && <div className="range" style={{ top: low - TOP, height: Math.max(3, high - low) }} />}
    </div>
  );
}

function heightOf({ range }: ParallelAxis, value: number): number {
  const share = (value - range[0]) / (range[1] - range[0]);
  return TOP + (1 - Math.min(1, Math.max(0, share))) * SPAN;
}

function draw(context: CanvasRenderingContext2D, props: ParallelProps, places: readonly number[], dark: boolean): void {
  const { axes, colours, kept, highlit } = props;
  const path = (row: number, into: Path2D) => {
    let isOn = false;
    axes.forEach((axis, index) => {
      const value = axis.values[row];
      if (value != null) into[isOn ? "lineTo" : "moveTo"](places[index] ?? 0, heightOf(axis, value));
      isOn = value != null;
    });
  };
  context.lineWidth = 1.25;
  const gone = new Path2D();
  const lines = new Map<string, Path2D>(); // One path for each colour: thousands of lines are drawn at once.
  kept.forEach((isKept, row) => {
    if (row === highlit) return;
    const colour = colourOf(colours[row] ?? 0, dark);
    if (isKept && !lines.has(colour)) lines.set(colour, new Path2D());
    path(row, (isKept && lines.get(colour)) || gone);
  });
  context.strokeStyle = themeColour("border") || "#8888";
  context.globalAlpha = kept.length > FEW ? 0.25 : 0.7;
  context.stroke(gone);
  const firm = kept.length > FEW ? Math.max(0.08, FEW / kept.length) : 0.85;
  context.globalAlpha = highlit >= 0 ? firm * 0.3 : firm;
  for (const [colour, line] of lines) {
    context.strokeStyle = colour;
    context.stroke(line);
  }
  context.globalAlpha = 1;
  if (highlit >= 0 && kept[highlit]) {
    const line = new Path2D();
    path(highlit, line);
    context.strokeStyle = colourOf(colours[highlit] ?? 0, dark);
    context.lineWidth = 3;
    context.stroke(line);
  }
  const ink = themeColour("fg.muted") || "#888";
  [context.strokeStyle, context.fillStyle, context.lineWidth] = [ink, ink, 1];
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  axes.forEach((axis, index) => {
    const place = places[index] ?? 0;
    context.beginPath();
    context.moveTo(place, TOP);
    context.lineTo(place, HEIGHT - BOTTOM);
    context.stroke();
    context.fillText(axis.ends[1], place, TOP - 6, APART - 8);
    context.fillText(axis.ends[0], place, HEIGHT - BOTTOM + 16, APART - 8);
  });
}

/** Returns the row whose line is nearest to a point between two axes, or -1 if none is near. */
function nearest({ axes, kept }: ParallelProps, places: readonly number[], x: number, y: number): number {
  const right = places.findIndex((place) => place >= x);
  const [one, other] = [axes[right - 1], axes[right]];
  if (!one || !other) return -1;
  const [from, to] = [places[right - 1] ?? 0, places[right] ?? 1];
  const share = (x - from) / (to - from);
  let [found, distance] = [-1, NEAR];
  kept.forEach((isKept, row) => {
    const [begin, end] = [one.values[row], other.values[row]];
    if (!isKept || begin == null || end == null) return;
    const height = heightOf(one, begin) * (1 - share) + heightOf(other, end) * share;
    if (Math.abs(height - y) < distance) [found, distance] = [row, Math.abs(height - y)];
  });
  return found;
}
