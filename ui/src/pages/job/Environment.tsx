// Where a job ran: Python, host, image, devices, packages; compared with an earlier run.
import { useState } from "react";
import { Await, Section } from "../../parts/basics";
import { useApi } from "../../query";
import { t, tn } from "../../strings";
import type { Schemas } from "../../types";
import { Fact, Names } from "./Code";
import { Changes, ComparedWith, OtherRun, useCompared } from "./Compared";
import { Styles } from "./Styles";
import type { SectionProps } from "./sections";

export function Environment({ place }: SectionProps) {
  const [which, choose] = useCompared();
  const answer = useApi<Schemas["EnvironmentAnswer"]>("job/environment", { ...place, compared_with: which });
  return (
    <>
      <Styles />
      <Section title={t("parts.environment")} aside={<ComparedWith which={which} choose={choose} />}>
        <Await of={answer}>
          {(found) =>
            found.is_known ? (
              <>
                <dl className="nemo-facts">
                  {found.facts.map(({ name, value }) => (
                    <Fact key={name} name={name}>
                      {value}
                    </Fact>
                  ))}
                </dl>
                <OtherRun which={which} run={found.other_run} />
                {!!found.changes?.length && <Changes changes={found.changes} />}
                <Names title={t("parts.variables")} names={found.variables} />
              </>
            ) : (
              <p className="muted">{t("parts.environment.none")}</p>
            )
          }
        </Await>
      </Section>
      {answer.data?.is_known && <Packages packages={answer.data.packages} />}
    </>
  );
}

function Packages({ packages }: { packages: Record<string, string> }) {
  const [wanted, setWanted] = useState("");
  const all = Object.entries(packages);
  const found = all.filter(([name, version]) => `${name} ${version}`.includes(wanted.trim().toLowerCase()));
  return (
    <Section
      title={tn("parts.packages", all.length)}
      aside={
        <input
          className="nemo-field"
          type="search"
          value={wanted}
          placeholder={t("parts.packages.search")}
          aria-label={t("parts.packages.search")}
          onChange={(event) => setWanted(event.target.value)}
        />
      }
    >
      {found.length ? (
        <div className="nemo-text" tabIndex={0} role="region" aria-label={tn("parts.packages", found.length)}>
          <table className="nemo-table">
            <thead>
              <tr>
                <th>{t("parts.name")}</th>
                <th>{t("parts.version")}</th>
              </tr>
            </thead>
            <tbody>
              {found.map(([name, version]) => (
                <tr key={name}>
                  <td>{name}</td>
                  <td>{version}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p className="muted">{t("parts.packages.none")}</p>
      )}
    </Section>
  );
}
