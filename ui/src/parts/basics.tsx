// Small things that every page has: a state, a copy button, what is shown while there are no data.
import { useState, type ReactNode } from "react";
import type { ApiError } from "../host";
import { t, type Text } from "../strings";

const STATES = ["pending", "running", "succeeded", "failed", "cancelled", "unknown", "lost"];

/** The state of a job. */
export function State({ state, title }: { state: string; title?: string }) {
  const name = STATES.includes(state) ? state : "unknown";
  return (
    <span className={`nemo-state ${name}`} title={title}>
      <span>{STATES.includes(state) ? t(`state.${state}` as Text) : state}</span>
    </span>
  );
}

/** A refusal or an outage, in the server's words. */
export function Problem({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div className="nemo-problem" role="alert">
      <p>{error.message}</p>
      {retry && (
        <button type="button" className="nemo-button" onClick={retry}>
          {t("try.again")}
        </button>
      )}
    </div>
  );
}

/** What stands where data will be, where there are none, or where they cannot be had. */
export function Await<T>(props: {
  of: { data: T | undefined; error: ApiError | undefined; reload: () => void };
  children: (data: T) => ReactNode;
}) {
  const { data, error, reload } = props.of;
  return (
    <>
      {error && <Problem error={error} retry={reload} />}
      {data !== undefined ? props.children(data) : !error && <p className="muted" role="status">{t("loading")}</p>}
    </>
  );
}

export function CopyButton({ text, label }: { text: string; label?: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () =>
    void navigator.clipboard.writeText(text).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    });
  return (
    <button type="button" className="nemo-button" onClick={copy} aria-label={label ?? t("copy")}>
      {copied ? t("copied") : (label ?? t("copy"))}
    </button>
  );
}

/** A part of a page with its heading. */
export function Section({ title, children, aside }: { title: string; children: ReactNode; aside?: ReactNode }) {
  return (
    <section className="nemo-card" aria-label={title}>
      <div className="nemo-bar" style={{ justifyContent: "space-between" }}>
        <h2>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}
