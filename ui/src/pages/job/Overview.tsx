// What the job went through: each phase with its length and the reason of each wait.
import { durationText, timeText } from "../../host";
import { Section } from "../../parts/basics";
import { t, type Text } from "../../strings";
import type { SectionProps } from "./sections";

const KNOWN = ["queued", "preparing", "pending", "running", "away", "keeping", "ended"];
const BESIDE = ["away", "keeping"];

export function Overview({ job }: SectionProps) {
  const ends = job.ended ?? (job.active ? job.now : (job.phases[job.phases.length - 1]?.at ?? job.now));
  const phases = job.phases.map((phase, index) => {
    const isOwn = !BESIDE.includes(phase.state);
    const next = job.phases.slice(index + 1).find(({ state }) => !BESIDE.includes(state))?.at;
    const until = phase.until ?? (phase.state === "ended" ? phase.at : isOwn ? (next ?? ends) : ends);
    return { ...phase, seconds: Math.max(until - phase.at, 0), isOwn, goesOn: job.active && phase.until == null && (!isOwn || next === undefined) };
  });
  const own = phases.filter((phase) => phase.isOwn && phase.state !== "ended" && phase.seconds > 0);
  return (
    <Section title={t("job.phases")}>
      {phases.length === 0 && <p className="muted">{t("job.phases.none")}</p>}
      {own.length > 0 && (
        <div className="nemo-phases-bar" role="img" aria-label={own.map((each) => `${name(each.state)} ${durationText(each.seconds)}`).join(", ")}>
          {own.map((phase) => (
            <i
              key={`${phase.state} ${phase.at}`}
              className={`nemo-phase-${known(phase.state)}${phase.goesOn ? " nemo-phase-now" : ""}`}
              style={{ flexGrow: phase.seconds }}
              title={`${name(phase.state)}: ${durationText(phase.seconds)}${phase.why ? ` (${phase.why})` : ""}`}
            />
          ))}
        </div>
      )}
      {phases.length > 0 && (
        <div className="nemo-scroll" tabIndex={0}>
          <table className="nemo-phases">
            <thead>
              <tr>
                <th>{t("job.phase")}</th>
                <th>{t("job.phase.since")}</th>
                <th>{t("job.phase.for")}</th>
                <th>{t("job.phase.why")}</th>
              </tr>
            </thead>
            <tbody>
              {phases.map((phase) => (
                <tr key={`${phase.state} ${phase.at}`}>
                  <td style={{ whiteSpace: "nowrap" }}>
                    <span className={`nemo-swatch nemo-phase-${known(phase.state)}`} /> {name(phase.state)}
                  </td>
                  <td style={{ whiteSpace: "nowrap" }}>{timeText(phase.at)}</td>
                  <td style={{ whiteSpace: "nowrap" }}>{phase.state === "ended" ? "" : durationText(phase.seconds)}</td>
                  <td className="why">{phase.why}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {job.phases_from === "airflow" && phases.length > 0 && <p className="muted">{t("job.phases.few")}</p>}
    </Section>
  );
}

const known = (state: string) => (KNOWN.includes(state) ? state : "ended");
const name = (state: string) => (KNOWN.includes(state) ? t(`job.phase.${state}` as Text) : state);
