import type { Schemas } from "../../types";
import type { Axis } from "./axes";
import type { Shown } from "./state";

/** A run of the comparison. */
export interface ShownRun extends Readonly<Schemas["ComparedRun"]> {
  /** Its name, or its key where others have the same name. */
  label: string;
  /** Its place in the answers. */
  index: number;
  colour: number;
  /** Whether it is in all ranges that were chosen on the axes. */
  kept: boolean;
}

/** What each part of the page is given. */
export interface PartProps {
  data: Schemas["Comparison"];
  shown: Shown;
  axes: readonly Axis[];
  runs: readonly ShownRun[];
  /** Id of the run that is pointed at: the others fade. */
  highlit: string;
  highlight: (id: string) => void;
}
