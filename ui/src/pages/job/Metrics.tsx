// A chart for each metric, in groups by the first part of their names.
import { useEffect, useMemo, useRef, useState } from "react";
import { useAddress } from "../../address";
import { fromWire, numberText } from "../../host";
import { Await } from "../../parts/basics";
import { Chart } from "../../parts/chart";
import { useApi } from "../../query";
import { t, tn } from "../../strings";
import type { Schemas } from "../../types";
import { Controls, useLook, type Look } from "./Controls";
import { placesOf, stepsWithin, toLine, useLines } from "./lines";
import type { JobQuery, SectionProps } from "./sections";

const SYSTEM = "system/";

export function Metrics({ place, job }: SectionProps) {
  const [search, setAddress] = useAddress();
  const wanted = search.get("metric") ?? "";
  const newest = useApi<Schemas["NewestValues"]>("job/metrics", place, job.active ? 5 : 0);
  const look = useLook();
  return (
    <Await of={newest}>
      {({ metrics, from_follower }) => {
        const own = metrics.filter(({ name }) => !name.startsWith(SYSTEM));
        const shown = own.filter(({ name }) => name.toLowerCase().includes(wanted.toLowerCase()));
        if (!own.length) return <p className="muted">{t(job.active ? "metrics.noneYet" : "metrics.none")}</p>;
        return (
          <>
            <div className="nemo-bar">
              <input
                type="search"
                className="nemo-field"
                aria-label={t("metrics.search")}
                placeholder={t("metrics.search")}
                value={wanted}
                onChange={(event) => setAddress({ metric: event.target.value })}
              />
              {!from_follower && <Controls look={look} />}
            </div>
            {from_follower && <p className="nemo-note">{t("metrics.fromFollower")}</p>}
            {from_follower ? <Values metrics={shown} /> : <Groups place={place} running={job.active} metrics={shown} look={look} />}
          </>
        );
      }}
    </Await>
  );
}

function Values({ metrics }: { metrics: readonly Schemas["NewestValue"][] }) {
  return (
    <table className="nemo-table">
      <tbody>
        {metrics.map(({ name, value }) => (
          <tr key={name}>
            <td>{name}</td>
            <td className="number">{numberText(fromWire(value))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Groups(props: { place: JobQuery; running: boolean; metrics: readonly Schemas["NewestValue"][]; look: Look }) {
  const groups = useMemo(() => {
    const found = new Map<string, Schemas["NewestValue"][]>();
    for (const metric of props.metrics) {
      const slash = metric.name.indexOf("/");
      const group = slash > 0 ? metric.name.slice(0, slash) : "";
      found.set(group, [...(found.get(group) ?? []), metric]);
    }
    return [...found].sort(([one], [other]) => one.localeCompare(other));
  }, [props.metrics]);
  if (!groups.length) return <p className="muted">{t("metrics.noneSo")}</p>;
  return (
    <>
      {groups.map(([group, metrics]) => (
        <details key={group} open className="nemo-card">
          <summary>
            <strong>{group || t("metrics.group")}</strong> <span className="muted">{tn("metrics.count", metrics.length)}</span>
          </summary>
          <div className="nemo-charts">
            {metrics.map((metric) => (
              <WhenSeen key={metric.name}>
                <MetricChart place={props.place} running={props.running} metric={metric} look={props.look} />
              </WhenSeen>
            ))}
          </div>
        </details>
      ))}
    </>
  );
}

/** Shows what it has once it is scrolled near: a job may have hundreds of charts. */
export function WhenSeen({ children }: { children: React.ReactNode }) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (!box.current || seen) return;
    const observer = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && setSeen(true),
      { rootMargin: "300px" },
    );
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [seen]);
  return (
    <div ref={box} className="nemo-chart-box">
      {seen && children}
    </div>
  );
}

function MetricChart({ place, running, metric, look }: { place: JobQuery; running: boolean; metric: Schemas["NewestValue"]; look: Look }) {
  const names = useMemo(() => [metric.name], [metric.name]);
  const all = useLines(place, names, running ? 5 : 0);
  const whole = all?.lines.get(metric.name);
  const isPart = !!whole && (whole.total == null || whole.total > whole.steps.length);
  const steps = all && isPart && look.range ? stepsWithin(whole, placesOf(whole, look.x, all.began), look.range) : null;
  const near = useLines(place, steps ? names : NONE, 0, steps);
  const kept = steps && near?.lines.get(metric.name) ? near : all;
  const line = kept?.lines.get(metric.name);
  const lines = useMemo(
    () =>
      line && kept
        ? [toLine(line, look.x, kept.began, { label: metric.name, colour: 0, running: running && kept === all })]
        : [],
    [line, kept, all, look.x, running, metric.name],
  );
  const slash = metric.name.indexOf("/");
  return (
    <>
      <h3 className="nemo-chart-title" title={metric.name}>
        {slash > 0 ? metric.name.slice(slash + 1) : metric.name}
      </h3>
      {kept?.error && <p className="muted" role="alert">{kept.error.message}</p>}
      {kept?.away && <p className="muted">{t("tracker.away", { why: kept.away })}</p>}
      {!kept && <p className="muted">{t("loading")}</p>}
      {kept && !kept.error && (
        <Chart
          title={metric.name}
          lines={lines}
          x={look.x}
          log={look.log}
          smoothing={look.smoothing}
          sync="job"
          range={look.range}
          onRange={look.setRange}
        />
      )}
      {line && !line.keeps_extremes && <p className="nemo-chart-notes">{t("metrics.sampled", { n: numberText(line.steps.length) })}</p>}
      {line?.total != null && line.total > line.steps.length && (
        <p className="nemo-chart-notes">{t("metrics.thinned", { n: numberText(line.total, 15) })}</p>
      )}
    </>
  );
}

const NONE: readonly string[] = [];
