// One colour for each run or metric, the same in tables, charts and legends; readable on light and on dark.
import { useDark } from "../host";

const LIGHT = ["#2563eb", "#c2410c", "#15803d", "#9333ea", "#be185d", "#0e7490", "#6b6b00", "#78533a"];
const DARK = ["#60a5fa", "#fb923c", "#4ade80", "#c084fc", "#f472b6", "#22d3ee", "#d9d94a", "#d6a985"];

/** Returns the colour of a number; after eight they begin again, which charts tell apart by dashes. */
export function colourOf(index: number, dark: boolean): string {
  const colours = dark ? DARK : LIGHT;
  return colours[((index % 8) + 8) % 8] ?? "#888888";
}

/** Returns what gives each number its colour in Airflow's present mode. */
export function useColours(): (index: number) => string {
  const dark = useDark();
  return (index) => colourOf(index, dark);
}
