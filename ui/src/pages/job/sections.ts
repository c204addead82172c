// The parts of a job's page. Each is loaded when it is opened.
import { lazy, type ComponentType, type LazyExoticComponent } from "react";
import type { Text } from "../../strings";
import type { Schemas } from "../../types";

/** What names a job to the API, in each request of its page. */
export type JobQuery = {
  dag_id?: string;
  dag_run_id?: string;
  task_id?: string;
  map_index?: number;
  mlflow_run_id?: string;
};

export interface SectionProps {
  place: JobQuery;
  job: Schemas["JobHead"];
  /** Asks for the head anew, after an action. */
  reload: () => void;
}

export interface JobSection {
  /** Its name in the address. */
  id: string;
  title: Text;
  Section: LazyExoticComponent<ComponentType<SectionProps>>;
}

export const SECTIONS: readonly JobSection[] = [
  {
    id: "overview",
    title: "job.section.overview",
    Section: lazy(() => import("./Overview").then((each) => ({ default: each.Overview }))),
  },
  {
    id: "config",
    title: "job.section.config",
    Section: lazy(() => import("./Config").then((each) => ({ default: each.Config }))),
  },
  {
    id: "metrics",
    title: "job.section.metrics",
    Section: lazy(() => import("./Metrics").then((each) => ({ default: each.Metrics }))),
  },
  {
    id: "system",
    title: "job.section.system",
    Section: lazy(() => import("./System").then((each) => ({ default: each.System }))),
  },
  {
    id: "code",
    title: "job.section.code",
    Section: lazy(() => import("./Code").then((each) => ({ default: each.Code }))),
  },
  {
    id: "environment",
    title: "job.section.environment",
    Section: lazy(() => import("./Environment").then((each) => ({ default: each.Environment }))),
  },
  {
    id: "files",
    title: "job.section.files",
    Section: lazy(() => import("./Files").then((each) => ({ default: each.Files }))),
  },
  {
    id: "origins",
    title: "job.section.origins",
    Section: lazy(() => import("./Origins").then((each) => ({ default: each.Origins }))),
  },
  {
    id: "notes",
    title: "job.section.notes",
    Section: lazy(() => import("./Notes").then((each) => ({ default: each.Notes }))),
  },
  {
    id: "actions",
    title: "job.section.actions",
    Section: lazy(() => import("./Actions").then((each) => ({ default: each.Actions }))),
  },
];
