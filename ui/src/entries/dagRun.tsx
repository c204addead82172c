import { page } from "../entry";
import { DagRun } from "../pages/DagRun";

page(DagRun);
