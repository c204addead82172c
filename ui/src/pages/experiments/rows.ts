// The rows of the list: pages one after the other, and what is under way brought up to date without loading all again.
import { useCallback, useEffect, useReducer } from "react";
import { ApiError, get, type Query } from "../../host";
import { useApi } from "../../query";
import type { Schemas } from "../../types";

export type Row = Schemas["RunRow"];

const PAGE = 20;
const LIVE_SECONDS = 3;
const AGAIN_SECONDS = 20;
const LISTS_KEPT = 10;

interface List {
  rows: Row[];
  next: string;
  /** How many pages there are after the first one. */
  later: number;
  answer?: Omit<Schemas["RunList"], "runs" | "next_page">;
  error?: ApiError;
  isLoading: boolean;
  at: number;
}

// Outside of the component: Airflow mounts a page anew after its first navigation.
const lists = new Map<string, List>();

export const idOf = (row: Row) => row.mlflow_run_id || row.key;

function without(rows: readonly Row[], known: readonly Row[]): Row[] {
  const ids = new Set(known.flatMap((row) => [idOf(row), row.key]));
  return rows.filter((row) => !ids.has(idOf(row)) && !ids.has(row.key));
}

async function load(list: List, query: Query, page: string): Promise<void> {
  if (list.isLoading) return;
  list.isLoading = true;
  try {
    const { runs, next_page, ...answer } = await get<Schemas["RunList"]>("runs", { ...query, limit: PAGE, page });
    if (page) {
      list.rows = [...list.rows, ...without(runs, list.rows)];
      list.next = next_page ?? "";
      list.later += 1;
    } else {
      // New jobs come first; those of later pages stay where they are.
      if (!list.later) list.next = next_page ?? "";
      list.rows = next_page ? [...runs, ...without(list.rows, runs)] : [...runs];
    }
    list.answer = answer;
    list.error = undefined;
  } catch (error) {
    list.error = error instanceof ApiError ? error : new ApiError(0, String(error));
  } finally {
    list.isLoading = false;
    list.at = Date.now();
  }
}

export function useRows(query: Query) {
  const [, changed] = useReducer((count: number) => count + 1, 0);
  const key = JSON.stringify(query);
  let list = lists.get(key);
  if (!list) {
    list = { rows: [], next: "", later: 0, isLoading: false, at: 0 };
    for (const old of [...lists.keys()].slice(0, Math.max(0, lists.size - LISTS_KEPT))) lists.delete(old);
    lists.set(key, list);
  }
  const mine = list;

  const again = useCallback(() => {
    void load(mine, query, "").then(changed);
    // Not all that it uses is a dependency: the key has the query.
  }, [key]);
  const more = useCallback(() => {
    if (mine.next && !mine.error) void load(mine, query, mine.next).then(changed);
    changed();
    // Not all that it uses is a dependency: the key has the query.
  }, [key]);

  useEffect(() => {
    if (Date.now() - mine.at > 2000) again();
    const timer = setInterval(() => !document.hidden && again(), AGAIN_SECONDS * 1000);
    return () => clearInterval(timer);
  }, [key, again]);

  // What Airflow's database tells of jobs that may be under way; a change is a reason to ask for the list.
  const live = useApi<Schemas["LiveRuns"]>("runs/live", {}, LIVE_SECONDS).data;
  const sign = live && [live.newest, ...live.runs.map((run) => run.key)].join(" ");
  useEffect(() => {
    if (sign !== undefined && mine.at && Date.now() - mine.at > 1500) again();
  }, [sign]);
  const told = new Map(live?.runs.map((run) => [run.key, run]));
  const rows = mine.rows.map((row) => {
    const now = told.get(row.key);
    return now && (row.state !== now.state || row.why !== now.why) ? { ...row, state: now.state, why: now.why ?? "" } : row;
  });

  return { rows, list: mine, again, more };
}
