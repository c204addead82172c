// Data of the server, kept outside of components: Airflow mounts a page anew after its first navigation.
import { useCallback, useEffect, useReducer, useRef } from "react";
import { ApiError, get, type Query } from "./host";

interface Entry {
  data?: unknown;
  error?: ApiError;
  at: number;
  running?: Promise<void>;
}

const KEPT = 200;
const entries = new Map<string, Entry>();

function load(key: string, path: string, query: Query): Promise<void> {
  const entry = entries.get(key) ?? { at: 0 };
  entries.delete(key); // To the end: the oldest ones go first.
  entries.set(key, entry);
  for (const old of entries.keys()) {
    if (entries.size <= KEPT) break;
    entries.delete(old);
  }
  entry.running ??= get(path, query)
    .then(
      (data) => Object.assign(entry, { data, error: undefined }),
      (error: unknown) => {
        entry.error = error instanceof ApiError ? error : new ApiError(0, String(error));
      },
    )
    .then(() => {
      entry.at = Date.now();
      entry.running = undefined;
    });
  return entry.running;
}

export interface Loaded<T> {
  /** The newest answer; that of the request before while another one is under way. */
  data: T | undefined;
  error: ApiError | undefined;
  isLoading: boolean;
  reload: () => void;
}

/** Loads a path of the API, again every so many seconds; slower while the page is not looked at. Null loads nothing. */
export function useApi<T>(path: string | null, query: Query = {}, everySeconds = 0): Loaded<T> {
  const [, changed] = useReducer((count: number) => count + 1, 0);
  const key = path === null ? "" : JSON.stringify([path, query]);
  const shown = useRef<T | undefined>(undefined);
  const entry = entries.get(key);

  const reload = useCallback(() => {
    if (path !== null) void load(key, path, query).then(changed);
    // Not all that it uses is a dependency: the key has path and query.
  }, [key]);

  useEffect(() => {
    if (path === null) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let gone = false;
    const next = () => {
      if (!gone && everySeconds) timer = setTimeout(run, everySeconds * 1000 * (document.hidden ? 10 : 1));
    };
    const run = () =>
      void load(key, path, query).then(() => {
        if (gone) return;
        changed();
        next();
      });
    const age = Date.now() - (entries.get(key)?.at ?? 0);
    if (age > 2000) run();
    else next();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
    // Not all that it uses is a dependency: the key has path and query.
  }, [key, everySeconds]);

  if (entry?.data !== undefined) shown.current = entry.data as T;
  return { data: shown.current, error: entry?.error, isLoading: path !== null && !entry?.at, reload };
}
