// Places the tasks of a graph in layers, from left to right: each right of all that come before it, with few crossings.
// An edge that passes layers gets a place in each of them, so that it does not run across a task.

export interface Box {
  id: string;
  width: number;
  height: number;
}

export interface Placed extends Box {
  x: number;
  y: number;
}

export interface Way {
  from: string;
  to: string;
  /** The path of an SVG. */
  path: string;
}

export interface Drawing {
  boxes: Placed[];
  ways: Way[];
  width: number;
  height: number;
}

interface Spot extends Placed {
  layer: number;
  /** Whether it is a place of an edge, not a task. */
  passing: boolean;
  before: Spot[];
  after: Spot[];
}

const SWEEPS = 8;
const ACROSS = 56;
const BELOW = 16;
const PASSING = 10;

/** Returns where the boxes are, and how the edges go; edges to what is no box, and back to an earlier one, are left out. */
export function layOut(boxes: readonly Box[], edges: readonly (readonly [string, string])[]): Drawing {
  const spots = new Map<string, Spot>(
    boxes.map((box) => [box.id, { ...box, x: 0, y: 0, layer: 0, passing: false, before: [], after: [] }]),
  );
  const following = new Map<string, string[]>();
  for (const [from, to] of edges) {
    if (from !== to && spots.has(from) && spots.has(to)) following.set(from, [...(following.get(from) ?? []), to]);
  }
  const layers = fillLayers(spots, following);
  const routes = route(spots, following, layers);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const order = sweep % 2 ? [...layers].reverse() : layers;
    for (const layer of order) sortBy(layer, sweep % 2 ? "after" : "before");
  }
  const { width, height } = place(layers);
  return {
    boxes: boxes.map(({ id }) => spots.get(id) as Spot),
    ways: routes.map((passed) => ({ from: passed[0]!.id, to: passed.at(-1)!.id, path: path(passed) })),
    width,
    height,
  };
}

/** Gives each task its layer: one more than the last of those before it. */
function fillLayers(spots: Map<string, Spot>, following: Map<string, string[]>): Spot[][] {
  const waits = new Map<string, number>();
  for (const tos of following.values()) for (const to of tos) waits.set(to, (waits.get(to) ?? 0) + 1);
  const ready = [...spots.keys()].filter((id) => !waits.get(id));
  for (let id = ready.shift(); id !== undefined; id = ready.shift()) {
    for (const to of following.get(id) ?? []) {
      spots.get(to)!.layer = Math.max(spots.get(to)!.layer, spots.get(id)!.layer + 1);
      waits.set(to, waits.get(to)! - 1);
      if (!waits.get(to)) ready.push(to);
    }
  }
  const layers: Spot[][] = [];
  for (const spot of spots.values()) (layers[spot.layer] ??= []).push(spot);
  return Array.from(layers, (layer) => layer ?? []);
}

/** Returns the places of each edge, and puts those between tasks into the layers. */
function route(spots: Map<string, Spot>, following: Map<string, string[]>, layers: Spot[][]): Spot[][] {
  const routes: Spot[][] = [];
  for (const [from, tos] of following) {
    for (const to of tos) {
      const [begin, end] = [spots.get(from)!, spots.get(to)!];
      if (begin.layer >= end.layer) continue; // A circle, which no DAG has.
      const passed = [begin];
      for (let layer = begin.layer + 1; layer < end.layer; layer++) {
        const id = `${from}\n${to}\n${layer}`;
        const spot: Spot = { id, width: 0, height: PASSING, x: 0, y: 0, layer, passing: true, before: [], after: [] };
        layers[layer]!.push(spot);
        passed.push(spot);
      }
      passed.push(end);
      for (let at = 1; at < passed.length; at++) {
        passed[at - 1]!.after.push(passed[at]!);
        passed[at]!.before.push(passed[at - 1]!);
      }
      routes.push(passed);
    }
  }
  for (const layer of layers) layer.forEach((spot, at) => (spot.y = at));
  return routes;
}

/** Orders a layer by where the neighbours on one side are; what has none there stays. */
function sortBy(layer: Spot[], side: "before" | "after"): void {
  const middle = new Map(
    layer.map((spot) => {
      const others = spot[side];
      return [spot, others.length ? others.reduce((sum, each) => sum + each.y, 0) / others.length : spot.y];
    }),
  );
  layer.sort((a, b) => middle.get(a)! - middle.get(b)!);
  layer.forEach((spot, at) => (spot.y = at));
}

function place(layers: Spot[][]): { width: number; height: number } {
  const heights = layers.map((layer) => layer.reduce((sum, spot) => sum + spot.height + BELOW, -BELOW));
  const height = Math.max(0, ...heights);
  let x = 0;
  layers.forEach((layer, at) => {
    const width = Math.max(0, ...layer.map((spot) => spot.width));
    let y = (height - heights[at]!) / 2;
    for (const spot of layer) {
      Object.assign(spot, { x: x + (width - spot.width) / 2, y });
      if (spot.passing) Object.assign(spot, { x, width });
      y += spot.height + BELOW;
    }
    x += width + ACROSS;
  });
  return { width: Math.max(0, x - ACROSS), height };
}

function path(passed: readonly Spot[]): string {
  const middle = (spot: Spot) => spot.y + spot.height / 2;
  let text = `M${passed[0]!.x + passed[0]!.width},${middle(passed[0]!)}`;
  for (let at = 1; at < passed.length; at++) {
    const [from, to] = [passed[at - 1]!, passed[at]!];
    const [begin, end] = [from.x + from.width, to.x];
    const half = (begin + end) / 2;
    text += `C${half},${middle(from)} ${half},${middle(to)} ${end},${middle(to)}`;
    if (to.passing) text += `H${to.x + to.width}`;
  }
  return text;
}
