// What the job uses of its machines and GPUs, beside what was asked for.
import { useMemo } from "react";
import { numberText, sizeText } from "../../host";
import { Await } from "../../parts/basics";
import { Chart, type Line } from "../../parts/chart";
import { useApi } from "../../query";
import { t, type Text } from "../../strings";
import type { Schemas } from "../../types";
import { Controls, useLook, type Look } from "./Controls";
import { WhenSeen } from "./Metrics";
import { toLine, useLines } from "./lines";
import type { JobQuery, SectionProps } from "./sections";

const NAME = /^system\/(?:node_(\d+)\/)?(?:gpu_([^_]+)_)?(.+)$/;

interface Measure {
  id: string;
  gpu: boolean;
  name: string;
  of: { metric: string; label: string }[];
}

export function System({ place, job }: SectionProps) {
  const newest = useApi<Schemas["NewestValues"]>("job/metrics", place, job.active ? 10 : 0);
  const asked = useApi<Schemas["Asked"]>("job/asked", place);
  const look = useLook("relative");
  return (
    <>
      {asked.data && <AskedFor asked={asked.data} />}
      <Await of={newest}>
        {({ metrics, from_follower }) => {
          const measures = measuresOf(metrics.map(({ name }) => name));
          if (from_follower || !measures.length) return <p className="muted">{t(job.active ? "system.noneYet" : "system.none")}</p>;
          return (
            <>
              <Controls look={look} ownX="relative" smooths={false} />
              <div className="nemo-charts">
                {measures.map((measure) => (
                  <WhenSeen key={measure.id}>
                    <MeasureChart place={place} running={job.active} measure={measure} asked={asked.data} look={look} />
                  </WhenSeen>
                ))}
              </div>
            </>
          );
        }}
      </Await>
    </>
  );
}

function AskedFor({ asked }: { asked: Schemas["Asked"] }) {
  const parts = [
    t("system.asked.nodes", { n: asked.nodes ?? 1 }),
    asked.cpus != null && t("system.asked.cpus", { n: numberText(asked.cpus) }),
    asked.memory_bytes != null && t("system.asked.memory", { n: sizeText(asked.memory_bytes) }),
    (asked.gpus ?? 0) > 0 && t("system.asked.gpus", { n: asked.gpus ?? 0 }),
  ].filter(Boolean);
  return (
    <p>
      <strong>{t("system.asked")}</strong> {parts.join(", ")}
      {asked.fields.length > 0 && (
        <span className="muted"> ({asked.fields.map(({ name, value }) => `${name}=${value}`).join(", ")})</span>
      )}
    </p>
  );
}

function measuresOf(names: readonly string[]): Measure[] {
  const found = new Map<string, Measure>();
  for (const metric of names) {
    const [, node, gpu, name] = NAME.exec(metric) ?? [];
    if (!name) continue;
    const id = `${gpu === undefined ? "" : "gpu "}${name}`;
    const measure = found.get(id) ?? { id, gpu: gpu !== undefined, name, of: [] };
    const label = [node !== undefined && t("system.node", { n: node }), gpu !== undefined && t("system.gpu", { n: gpu })];
    measure.of.push({ metric, label: label.filter(Boolean).join(", ") || t("system.job") });
    found.set(id, measure);
  }
  return [...found.values()].sort((one, other) => Number(other.gpu) - Number(one.gpu) || one.id.localeCompare(other.id));
}

const unitOf = (name: string) =>
  name.endsWith("_bytes") ? "bytes" : name.endsWith("_megabytes") ? "megabytes" : /percent/.test(name) ? "percent" : "";

function formatOf(name: string): (value: number | null) => string {
  const unit = unitOf(name);
  return (value) => {
    if (value == null) return "";
    if (unit === "bytes") return sizeText(value);
    if (unit === "megabytes") return sizeText(value * 1e6);
    return unit === "percent" ? `${numberText(value, 4)} %` : numberText(value, 5);
  };
}

/** What of this was asked for, in the unit of the measure; none where the back-end was not told. */
function limitOf(measure: Measure, asked: Schemas["Asked"] | undefined): number | null {
  if (measure.gpu && unitOf(measure.name) === "percent") return 100;
  if (measure.name === "cpu_percent" && asked?.cpus != null) return asked.cpus * 100;
  if (measure.name === "rss_bytes" && asked?.memory_bytes != null) return asked.memory_bytes;
  return null;
}

function MeasureChart(props: { place: JobQuery; running: boolean; measure: Measure; asked: Schemas["Asked"] | undefined; look: Look }) {
  const { measure, look, running } = props;
  const key = measure.of.map(({ metric }) => metric).join("\n");
  const names = useMemo(() => key.split("\n").slice(0, 50), [key]);
  const kept = useLines(props.place, names, running ? 10 : 0);
  const limit = limitOf(measure, props.asked);
  const lines = useMemo(() => {
    const drawn: Line[] = [];
    for (const [index, { metric, label }] of measure.of.entries()) {
      const line = kept?.lines.get(metric);
      if (line && kept) drawn.push(toLine(line, look.x, kept.began, { label, colour: index, running }));
    }
    const xs = drawn.flatMap(({ x }) => [x[0], x[x.length - 1]]).filter((x): x is number => x !== undefined);
    if (limit !== null && xs.length) {
      drawn.push({ id: "limit", label: t("system.limit"), colour: 4, x: [Math.min(...xs), Math.max(...xs)], y: [limit, limit], dashed: true });
    }
    return drawn;
    // Not all that it uses is a dependency: the key has what is measured.
  }, [kept, look.x, running, limit, key]);
  const title = titleOf(measure);
  return (
    <>
      <h3 className="nemo-chart-title">{title}</h3>
      {kept?.error && <p className="muted" role="alert">{kept.error.message}</p>}
      {kept?.away && <p className="muted">{t("tracker.away", { why: kept.away })}</p>}
      {!kept && <p className="muted">{t("loading")}</p>}
      {kept && !kept.error && (
        <Chart
          title={title}
          lines={lines}
          x={look.x}
          log={look.log}
          height={180}
          fromZero={!look.log}
          sync="system"
          range={look.range}
          onRange={look.setRange}
          format={formatOf(measure.name)}
        />
      )}
    </>
  );
}

const TITLES: Record<string, Text> = {
  cpu_percent: "system.name.cpu",
  rss_bytes: "system.name.rss",
  processes: "system.name.processes",
  read_bytes: "system.name.read",
  write_bytes: "system.name.write",
};

function titleOf({ name, gpu }: Measure): string {
  const known = !gpu && TITLES[name];
  if (known) return t(known);
  const words = name.replace(/_(percentage|percent|megabytes|bytes|watts|celsius)$/, "").replaceAll("_", " ");
  const unit = { watts: " (W)", celsius: " (°C)" }[/_(watts|celsius)$/.exec(name)?.[1] ?? ""] ?? "";
  return `${gpu ? "GPU: " : ""}${words}${unit}`;
}

