// All that is Airflow's: addresses, its API, colour mode, language, time zone. Nothing else knows that we are inside it.
import { useSyncExternalStore } from "react";

const API = "nemo-airflow/api/v1/";

/** What the server says of a request that it refuses, or why none came through. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export type Query = Record<string, string | number | boolean | null | undefined | readonly (string | number)[]>;

/** Returns an address below Airflow's base, which may have a path. */
export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

export function apiAddress(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") search.append(name, String(each));
    }
  }
  const text = search.toString();
  return address(API + path + (text ? `?${text}` : ""));
}

async function call<T>(path: string, query: Query | undefined, init: RequestInit): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(apiAddress(path, query), { credentials: "same-origin", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, "Airflow's server does not answer.");
  }
  if (answer.status === 401) {
    const next = encodeURIComponent(location.pathname + location.search);
    location.assign(address(`api/v2/auth/login?next=${next}`));
  }
  if (!answer.ok) throw new ApiError(answer.status, await reason(answer));
  return (await answer.json()) as T;
}

async function reason(answer: Response): Promise<string> {
  try {
    const detail = (await answer.json()).detail;
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail)) return detail.map((each) => `${(each.loc ?? []).join(".")}: ${each.msg}`).join("; ");
  } catch {
    // No JSON: a proxy's page. Its status says enough.
  }
  return answer.status === 403 ? "You may not see this in Airflow." : `Airflow's server answered ${answer.status}.`;
}

export function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  return call<T>(path, query, signal ? { signal } : {});
}

/** Calls an action. A JSON body is also what keeps other sites from calling it: Airflow has no CSRF token. */
export function post<T>(path: string, body: unknown, query?: Query): Promise<T> {
  return call<T>(path, query, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** Returns the address if it is one of the web, else undefined: a record may have any text. */
export function webAddress(text: string | null | undefined): string | undefined {
  return text && /^https?:\/\//i.test(text) ? text : undefined;
}

export function taskPath(at: { dag_id: string; dag_run_id: string; task_id: string; map_index?: number | null }): string {
  const mapped = at.map_index != null && at.map_index >= 0 ? `/mapped/${at.map_index}` : "";
  const [dag, run, task] = [at.dag_id, at.dag_run_id, at.task_id].map(encodeURIComponent);
  return `/dags/${dag}/runs/${run}/tasks/${task}${mapped}`;
}

export function jobPath(at: Parameters<typeof taskPath>[0]): string {
  return `${taskPath(at)}/plugin/nemo_job`;
}

// ---- What Airflow shows everything in

function observe(changed: () => void): () => void {
  const observer = new MutationObserver(changed);
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["class", "lang", "dir"] });
  return () => observer.disconnect();
}

/** Whether Airflow is in its dark mode. */
export function useDark(): boolean {
  return useSyncExternalStore(observe, () => document.documentElement.classList.contains("dark"));
}

export function useLanguage(): string {
  return useSyncExternalStore(observe, language);
}

export function language(): string {
  const name = document.documentElement.lang || navigator.language || "en";
  try {
    return Intl.getCanonicalLocales(name)[0] ?? "en";
  } catch {
    return "en"; // Not a name that browsers know.
  }
}

export function timeZone(): string | undefined {
  try {
    const name: unknown = JSON.parse(localStorage.getItem("timezone") ?? "null");
    if (typeof name !== "string") return undefined;
    new Intl.DateTimeFormat("en", { timeZone: name });
    return name;
  } catch {
    return undefined; // The browser's own.
  }
}

/** Returns a time in seconds since the epoch in the user's language and Airflow's time zone. */
export function timeText(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  return new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "medium", timeZone: timeZone() }).format(
    seconds * 1000,
  );
}

export function numberText(value: number | null | undefined, digits = 6): string {
  if (value == null) return "";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  const small = value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e9);
  return new Intl.NumberFormat(language(), {
    maximumSignificantDigits: digits,
    ...(small ? { notation: "scientific" as const } : {}),
  }).format(value);
}

/** Returns a duration as people read it: "42 s", "3 min 20 s", "2 h 5 min", "3 d 4 h". */
export function durationText(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  const whole = Math.max(0, seconds);
  if (whole < 10) return `${numberText(Math.round(whole * 10) / 10)} s`;
  if (whole < 60) return `${Math.round(whole)} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${Math.round(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function sizeText(bytes: number | null | undefined): string {
  if (bytes == null || !Number.isFinite(bytes)) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${numberText(value, 3)} ${units[unit]}`;
}

/** Reads a colour of Airflow's theme, for a canvas: "fg", "fg.muted", "border" ... */
export function themeColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--chakra-colors-${name.replace(".", "-")}`).trim();
}

// JSON has neither NaN nor infinities: the server writes them as texts.
export type Wire = number | "NaN" | "Infinity" | "-Infinity" | null;
export function fromWire(value: Wire | string | undefined): number | null {
  return value == null ? null : Number(value);
}
