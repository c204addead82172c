// What a page shows stands in its address, so that a link shows the same. Not through the router: its search parameters
// mount the page anew at the first change, and a field would lose the focus.
import { useSyncExternalStore } from "react";

const listeners = new Set<() => void>();
const changed = () => listeners.forEach((each) => each());

function subscribe(listener: () => void): () => void {
  if (!listeners.size) window.addEventListener("popstate", changed);
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (!listeners.size) window.removeEventListener("popstate", changed);
  };
}

/** Returns the parameters of the address, and a function that sets some; null, "" and [] remove one. */
export function useAddress(): [URLSearchParams, (changes: Changes, how?: "replace" | "push") => void] {
  const search = useSyncExternalStore(subscribe, () => location.search);
  return [new URLSearchParams(search), setAddress];
}

type Changes = Record<string, string | number | readonly string[] | null | undefined>;

export function setAddress(changes: Changes, how: "replace" | "push" = "replace"): void {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    url.searchParams.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each != null && each !== "") url.searchParams.append(name, String(each));
    }
  }
  if (how === "push") history.pushState(history.state, "", url);
  else history.replaceState(history.state, "", url);
  changed();
}
