// With which earlier run a part of the page is compared, and what differs.
import { useAddress } from "../../address";
import { timeText } from "../../host";
import { Lines, reportLines } from "../../parts/rows";
import { t } from "../../strings";
import type { Schemas } from "../../types";

export type Which = "" | "last" | "good";

export function useCompared(): [Which, (which: Which) => void] {
  const [search, setAddress] = useAddress();
  const text = search.get("compared") ?? "";
  return [text === "last" || text === "good" ? text : "", (which) => setAddress({ compared: which })];
}

export function ComparedWith({ which, choose }: { which: Which; choose: (which: Which) => void }) {
  return (
    <label className="nemo-bar">
      {t("parts.compare")}
      <select className="nemo-field" value={which} onChange={(event) => choose(event.target.value as Which)}>
        <option value="">{t("parts.compare.none")}</option>
        <option value="last">{t("parts.compare.last")}</option>
        <option value="good">{t("parts.compare.good")}</option>
      </select>
    </label>
  );
}

export function OtherRun({ which, run }: { which: Which; run: Schemas["EarlierRun"] | null | undefined }) {
  if (!which) return null;
  if (!run) return <p className="muted">{t("parts.compare.noRun")}</p>;
  return <p className="muted">{t("parts.compare.run", { key: run.key, state: run.state ?? "", when: timeText(run.started) })}</p>;
}

export function Changes({ changes }: { changes: readonly Schemas["ChangedPart"][] }) {
  return (
    <dl className="nemo-changes">
      {changes.map((part) => (
        <div key={part.name}>
          <dt>{part.name}</dt>
          <dd>
            {part.verdict === "same" ? <span className="muted">{t("parts.same")}</span> : <strong>{part.verdict}</strong>}
            {part.detail && <span className="muted"> {part.detail}</span>}
            {part.lines.length > 0 && <Lines lines={reportLines(part.lines)} label={part.name} />}
          </dd>
        </div>
      ))}
    </dl>
  );
}
