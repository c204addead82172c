// The champion and the challenger of each model of which a DAG run has registered or promoted a version.
import { Link } from "react-router-dom";
import { fromWire, jobPath, numberText, timeText, type Wire } from "../host";
import { Section } from "../parts/basics";
import { useApi } from "../query";
import { t, type Text } from "../strings";
import type { Schemas } from "../types";

type Model = Schemas["RunModel"];
type Version = Schemas["ModelVersion"];

const KINDS = ["promotion", "rollback"];

export function Models({ dagId, runId, isOver }: { dagId: string; runId: string; isOver: boolean }) {
  const query = { dag_id: dagId, dag_run_id: runId };
  const { data } = useApi<Schemas["RunModels"]>("dag-run/models", query, isOver ? 120 : 15);
  return data?.models.map((model) => <Strip key={model.name} model={model} />);
}

function Strip({ model }: { model: Model }) {
  const [champion, challenger] = (["champion", "challenger"] as const).map((role) =>
    model.versions.find((each) => each.role === role),
  );
  const decided = KINDS.includes(model.decision ?? "") ? t(`dagRun.model.${model.decision}` as Text) : model.decision;
  return (
    <Section title={t("dagRun.model", { name: model.name })}>
      <div className="nemo-versions">
        {champion ? <VersionBox version={champion} /> : <p className="muted">{t("dagRun.model.first")}</p>}
        {challenger && (
          <>
            <span className="arrow" aria-hidden="true">
              →
            </span>
            <VersionBox version={challenger} />
          </>
        )}
      </div>
      <p className="nemo-decided">
        <strong>{t("dagRun.model.decided")}</strong>: {decided || t("dagRun.model.open")}
        {model.reason && `: ${model.reason}`}
      </p>
      {model.metrics.length > 0 && <Metrics model={model} />}
      {(model.others ?? 0) > 0 && <p className="muted">{t("dagRun.model.others", { n: model.others ?? 0 })}</p>}
      {model.changes.length > 0 && <Changes model={model} />}
    </Section>
  );
}

function VersionBox({ version }: { version: Version }) {
  const name = t("dagRun.model.version", { version: version.version });
  return (
    <span className={`nemo-version ${version.role}`}>
      <span className="muted">{t(`dagRun.model.${version.role}`)}</span>
      {version.place?.dag_id ? <Link to={jobPath(version.place)}>{name}</Link> : <span>{name}</span>}
      <span className="muted">
        {[version.aliases.map((alias) => `@${alias}`).join(" "), timeText(version.created)].filter(Boolean).join(" · ")}
      </span>
    </span>
  );
}

function Metrics({ model }: { model: Model }) {
  return (
    <>
      <div className="nemo-scroll" tabIndex={0}>
        <table className="nemo-table" aria-label={t("dagRun.model", { name: model.name })}>
          <thead>
            <tr>
              <th>{t("dagRun.model.metric")}</th>
              <th className="number">{t("dagRun.model.champion")}</th>
              <th className="number">{t("dagRun.model.challenger")}</th>
              <th className="number">{t("dagRun.model.difference")}</th>
            </tr>
          </thead>
          <tbody>
            {model.metrics.map((each) => {
              const [old, now] = [fromWire(each.champion as Wire), fromWire(each.challenger as Wire)];
              return (
                <tr key={each.name}>
                  <td>{each.name}</td>
                  <td className="number">{numberText(old)}</td>
                  <td className="number">{numberText(now)}</td>
                  <td className="number">
                    {old !== null && now !== null && `${now > old ? "+" : ""}${numberText(now - old, 4)}`}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      <p className="muted">{t(model.compared ? "dagRun.model.same" : "dagRun.model.apart")}</p>
    </>
  );
}

function Changes({ model }: { model: Model }) {
  return (
    <details>
      <summary>{t("dagRun.model.changes")}</summary>
      <ul className="nemo-failures">
        {model.changes.map((each) => (
          <li key={`${each.at} ${each.version}`}>
            {timeText(each.at)}:{" "}
            {t("dagRun.model.change", {
              kind: KINDS.includes(each.kind) ? t(`dagRun.model.${each.kind}` as Text) : each.kind,
              version: each.version,
              before: each.before || t("dagRun.model.nothing"),
            })}
            {each.is_of_run && `, ${t("dagRun.model.byRun")}`}
            {each.why && `: ${each.why}`}
            {each.by && ` (${each.by})`}
          </li>
        ))}
      </ul>
    </details>
  );
}
