// What ran: commit, uncommitted changes, what was submitted, what was shipped; compared with an earlier run.
import { lazy, Suspense } from "react";
import { sizeText, webAddress } from "../../host";
import { Await, CopyButton, Section } from "../../parts/basics";
import { Lines, patchLines } from "../../parts/rows";
import { useApi } from "../../query";
import { t } from "../../strings";
import type { Schemas } from "../../types";
import { Changes, ComparedWith, OtherRun, useCompared, type Which } from "./Compared";
import { Styles } from "./Styles";
import type { JobQuery, SectionProps } from "./sections";

const TextDiff = lazy(() => import("../../parts/textDiff"));

export function Code({ place }: SectionProps) {
  const [which, choose] = useCompared();
  const answer = useApi<Schemas["CodeAnswer"]>("job/code", { ...place, compared_with: which });
  return (
    <>
      <Styles />
      <Section title={t("parts.code")} aside={<ComparedWith which={which} choose={choose} />}>
        <Await of={answer}>
          {({ code, other, other_run: run, changes }) => (
            <>
              <Facts code={code} />
              <OtherRun which={which} run={run} />
              {changes && changes.length > 0 && <Changes changes={changes} />}
              <Patch code={code} />
              {other && (other.patch || code.patch) && other.patch !== code.patch && (
                <details>
                  <summary>{t("parts.patch.compare")}</summary>
                  <Suspense fallback={<p className="muted">{t("loading")}</p>}>
                    <TextDiff old={other.patch ?? ""} now={code.patch ?? ""} label={t("parts.patch.compare")} />
                  </Suspense>
                </details>
              )}
            </>
          )}
        </Await>
      </Section>
      <Script place={place} which={which} />
      <Contents place={place} />
    </>
  );
}

function Facts({ code }: { code: Schemas["Code"] }) {
  if (!code.commit && !code.package) return <p className="muted">{t("parts.noCommit")}</p>;
  const [page, origin] = [webAddress(code.url), webAddress(code.origin)];
  return (
    <>
      <dl className="nemo-facts">
        <Fact name={t("parts.commit")}>
          <code>
            {page ? (
              <a href={page} target="_blank" rel="noopener noreferrer">
                {code.commit}
              </a>
            ) : (
              code.commit
            )}
          </code>
        </Fact>
        <Fact name={t("parts.branch")}>{code.branch}</Fact>
        <Fact name={t("parts.repository")}>
          {origin ? (
            <a href={origin} target="_blank" rel="noopener noreferrer">
              {code.origin}
            </a>
          ) : (
            code.origin
          )}
        </Fact>
        <Fact name={t("parts.package")}>{code.package && <code>{code.package.slice(0, 12)}</code>}</Fact>
      </dl>
      {!!code.parts?.length && (
        <div className="nemo-scroll" tabIndex={0}>
          <table className="nemo-table" aria-label={t("parts.packageParts")}>
            <thead>
              <tr>
                <th>{t("parts.folder")}</th>
                <th>{t("parts.kind")}</th>
                <th>{t("parts.commit")}</th>
              </tr>
            </thead>
            <tbody>
              {code.parts.map((part, index) => (
                <tr key={index}>
                  <td>{part.prefix || "/"}</td>
                  <td>{part.kind}</td>
                  <td>
                    <code>
                      {webAddress(part.url) ? (
                        <a href={webAddress(part.url)} target="_blank" rel="noopener noreferrer">
                          {part.commit?.slice(0, 12)}
                        </a>
                      ) : (
                        part.commit?.slice(0, 12)
                      )}
                    </code>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Names title={t("parts.included")} names={code.included ?? []} />
      <Names title={t("parts.excluded")} names={code.excluded ?? []} />
    </>
  );
}

function Patch({ code }: { code: Schemas["Code"] }) {
  return (
    <>
      <h3>{t("parts.patch")}</h3>
      {code.patch ? (
        <Lines lines={patchLines(code.patch)} label={t("parts.patch")} />
      ) : (
        <p className="muted">{code.why_no_patch || t("parts.patch.none")}</p>
      )}
      {code.patch_is_cut && <p className="muted">{t("parts.patch.cut")}</p>}
    </>
  );
}

function Script({ place, which }: { place: JobQuery; which: Which }) {
  const answer = useApi<Schemas["Script"]>("job/script", { ...place, compared_with: which });
  const text = answer.data?.text;
  return (
    <Section title={t("parts.script")} aside={text && <CopyButton text={text} />}>
      <Await of={answer}>
        {(script) => (
          <>
            {script.other_run && (
              <Suspense fallback={<p className="muted">{t("loading")}</p>}>
                <h3>{t("parts.script.compare")}</h3>
                <TextDiff old={script.other ?? ""} now={script.text} label={t("parts.script.compare")} />
              </Suspense>
            )}
            {script.text ? (
              <pre className="nemo-text" tabIndex={0} aria-label={t("parts.script")}>{script.text}</pre>
            ) : (
              <p className="muted">{t("parts.script.none")}</p>
            )}
            {script.is_cut && <p className="muted">{t("parts.script.cut")}</p>}
          </>
        )}
      </Await>
    </Section>
  );
}

function Contents({ place }: { place: JobQuery }) {
  const answer = useApi<Schemas["PackageContents"]>("job/package", place);
  return (
    <Section title={t("parts.contents")}>
      <Await of={answer}>
        {({ files = [], total = 0, why_not: whyNot }) =>
          whyNot ? (
            <p className="muted">{whyNot}</p>
          ) : (
            <>
              <div className="nemo-text" tabIndex={0} role="region" aria-label={t("parts.contents")}>
                <table className="nemo-table">
                  <thead>
                    <tr>
                      <th>{t("parts.file")}</th>
                      <th className="number">{t("parts.size")}</th>
                    </tr>
                  </thead>
                  <tbody>
                    {files.map((file) => (
                      <tr key={file.path}>
                        <td>{file.path}</td>
                        <td className="number">{sizeText(file.size)}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              {total > files.length && <p className="muted">{t("parts.contents.first", { n: files.length, total })}</p>}
            </>
          )
        }
      </Await>
    </Section>
  );
}

export function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  if (!children) return null;
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Names({ title, names }: { title: string; names: readonly string[] }) {
  if (!names.length) return null;
  return (
    <details>
      <summary>
        {title} ({names.length})
      </summary>
      <ul className="nemo-names">
        {names.map((name) => (
          <li key={name}>
            <code>{name}</code>
          </li>
        ))}
      </ul>
    </details>
  );
}
