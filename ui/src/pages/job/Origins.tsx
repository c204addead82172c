// What the job was made from and what came of it: artifacts, runs, assets, models; and its checkpoints.
import { Link } from "react-router-dom";
import { jobPath, sizeText, timeText, webAddress } from "../../host";
import { Await, Section, State } from "../../parts/basics";
import { useApi } from "../../query";
import { t } from "../../strings";
import type { Schemas } from "../../types";
import { Styles } from "./Styles";
import type { JobQuery, SectionProps } from "./sections";

export function Origins({ place }: SectionProps) {
  const answer = useApi<Schemas["Origins"]>("job/origins", place);
  return (
    <>
      <Styles />
      <Await of={answer}>
        {(found) => (
          <>
            <Section title={t("parts.inputs")}>
              <Table given={found.inputs} none={t("parts.inputs.none")} other={t("parts.source")} />
            </Section>
            <Section title={t("parts.consumers")}>
              <Table given={found.consumers} none={t("parts.consumers.none")} other={t("parts.usedIn")} />
            </Section>
            <Assets found={found} />
            <Models models={found.models} />
            {found.not_known.map((line) => (
              <p key={line} className="nemo-note">{line}</p>
            ))}
          </>
        )}
      </Await>
      <Checkpoints place={place} />
    </>
  );
}

function Run({ run }: { run: Schemas["RelatedRun"] }) {
  const name = `${run.name} (${run.key})`;
  return (
    <span className="nemo-bar">
      {run.place.dag_id ? <Link to={`${jobPath(run.place)}?mlflow_run_id=${run.mlflow_run_id}`}>{name}</Link> : name}
      <State state={run.state} />
    </span>
  );
}

function Table({ given, none, other }: { given: readonly Schemas["Given"][]; none: string; other: string }) {
  if (!given.length) return <p className="muted">{none}</p>;
  return (
    <div className="nemo-scroll" tabIndex={0}>
      <table className="nemo-table">
        <thead>
          <tr>
            <th>{t("parts.name")}</th>
            <th>{t("parts.digest")}</th>
            <th>{other}</th>
          </tr>
        </thead>
        <tbody>
          {given.map((each, index) => (
            <tr key={index}>
              <td>{each.kind === "reproduction" ? t("parts.reproduction") : each.kind === "variation" ? t("parts.variation") : each.name}</td>
              <td>
                <code title={each.digest}>{each.digest.slice(0, 12)}</code>
              </td>
              <td>{each.is_hidden ? <span className="muted">{t("parts.hidden")}</span> : each.run ? <Run run={each.run} /> : each.source}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Assets({ found }: { found: Schemas["Origins"] }) {
  const rows = [
    ...found.triggered_by.map((asset) => ({ asset, how: t("parts.asset.by") })),
    ...found.assets.map((asset) => ({ asset, how: t("parts.asset.made") })),
  ];
  if (!rows.length) return null;
  return (
    <Section title={t("parts.assets")}>
      <ul className="nemo-names">
        {rows.map(({ asset, how }, index) => (
          <li key={index}>
            <Link to={`/assets/${asset.asset_id}`}>{asset.name}</Link> <span className="muted">{how}, {timeText(asset.at)}</span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Models({ models }: { models: readonly Schemas["MadeVersion"][] }) {
  if (!models.length) return null;
  return (
    <Section title={t("parts.models")}>
      <table className="nemo-table">
        <thead>
          <tr>
            <th>{t("parts.name")}</th>
            <th>{t("parts.version")}</th>
            <th>{t("parts.aliases")}</th>
          </tr>
        </thead>
        <tbody>
          {models.map((model) => (
            <tr key={`${model.name} ${model.version}`}>
              <td>
                {webAddress(model.url) ? (
                  <a href={webAddress(model.url)} target="_blank" rel="noopener noreferrer">
                    {model.name}
                  </a>
                ) : (
                  model.name
                )}
              </td>
              <td>{model.version}</td>
              <td>{model.aliases.join(", ")}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}

function Checkpoints({ place }: { place: JobQuery }) {
  const answer = useApi<Schemas["Checkpoints"]>("job/checkpoints", place);
  return (
    <Section title={t("parts.checkpoints")}>
      <Await of={answer}>
        {(found) => (
          <>
            {found.resumes && (
              <p>
                {t("parts.resumes")} <Run run={found.resumes} />
              </p>
            )}
            {found.resumes_hidden && <p className="muted">{t("parts.resumes")} {t("parts.hidden")}</p>}
            {found.attempts.length > 1 && (
              <>
                <h3>{t("parts.attempts")}</h3>
                <ol className="nemo-names">
                  {found.attempts.map((key) => (
                    <li key={key}>
                      <code>{key}</code>
                    </li>
                  ))}
                </ol>
              </>
            )}
            {found.checkpoints?.length ? (
              <div className="nemo-scroll" tabIndex={0}>
                <table className="nemo-table">
                  <thead>
                    <tr>
                      <th>{t("parts.checkpoint.number")}</th>
                      <th>{t("parts.name")}</th>
                      <th className="number">{t("parts.checkpoint.files")}</th>
                      <th className="number">{t("parts.size")}</th>
                      <th>{t("parts.checkpoint.saved")}</th>
                      <th>{t("parts.checkpoint.loaded")}</th>
                    </tr>
                  </thead>
                  <tbody>
                    {found.checkpoints.map((each) => (
                      <tr key={each.name}>
                        <td>{each.number}</td>
                        <td>
                          <code>{each.name}</code>
                        </td>
                        <td className="number">{each.files}</td>
                        <td className="number">{sizeText(each.size)}</td>
                        <td>{each.saved_by}</td>
                        <td>{each.continued_by}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            ) : (
              <p className="muted">{found.why_not || t("parts.checkpoints.none")}</p>
            )}
          </>
        )}
      </Await>
    </Section>
  );
}
