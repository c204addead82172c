// The files of the run: folders, previews, downloads; and what the job has returned.
import { useState } from "react";
import { useAddress } from "../../address";
import { apiAddress, sizeText } from "../../host";
import { Await, CopyButton, Section } from "../../parts/basics";
import { Markdown } from "../../parts/markdown";
import { useApi } from "../../query";
import { t } from "../../strings";
import type { Schemas } from "../../types";
import { Styles } from "./Styles";
import type { JobQuery, SectionProps } from "./sections";

const PAGE = 100;

export function Files({ place }: SectionProps) {
  const [search, setAddress] = useAddress();
  const folder = search.get("folder") ?? "";
  const offset = Math.max(0, Number(search.get("from")) || 0);
  const list = useApi<Schemas["FileList"]>("job/files", { ...place, folder, offset, limit: PAGE });
  const chosen = search.get("file");
  const report = !folder && list.data?.folder === "" ? list.data.files.find(({ name }) => /^report\.\w+$/i.test(name)) : undefined;
  const path = chosen ?? report?.path;
  const go = (to: string) => setAddress({ folder: to, from: null, file: null });
  return (
    <>
      <Styles />
      <Section title={t("parts.files")}>
        <div className="nemo-files">
          <div>
            <Crumbs folder={folder} go={go} />
            <Await of={list}>
              {({ files, total }) => (
                <>
                  {!files.length && <p className="muted">{t(folder ? "parts.files.none" : "parts.files.first")}</p>}
                  <ul className="nemo-file-list">
                    {files.map((file) => (
                      <li key={file.path}>
                        <button
                          type="button"
                          aria-current={file.path === path}
                          onClick={() => (file.is_folder ? go(file.path) : setAddress({ file: file.path }))}
                        >
                          {file.is_folder ? `▸ ${file.name}/` : file.name}
                        </button>
                        <span className="muted">{file.is_folder ? "" : sizeText(file.size)}</span>
                        {!file.is_folder && (
                          <a href={content(place, file.path)} aria-label={t("parts.download.of", { name: file.name })} title={t("parts.download")}>
                            ↓
                          </a>
                        )}
                      </li>
                    ))}
                  </ul>
                  {total > PAGE && (
                    <div className="nemo-bar">
                      <button type="button" className="nemo-button" disabled={!offset} onClick={() => setAddress({ from: offset > PAGE ? offset - PAGE : null })}>
                        {t("parts.files.earlier")}
                      </button>
                      <span>{t("parts.files.shown", { from: offset + 1, to: offset + files.length, total })}</span>
                      <button type="button" className="nemo-button" disabled={offset + PAGE >= total} onClick={() => setAddress({ from: offset + PAGE })}>
                        {t("parts.files.later")}
                      </button>
                    </div>
                  )}
                </>
              )}
            </Await>
          </div>
          {path && <File key={path} place={place} path={path} />}
        </div>
      </Section>
      {!!list.data?.artifacts.length && <Artifacts artifacts={list.data.artifacts} />}
    </>
  );
}

function content(place: JobQuery, path: string, how?: "inline"): string {
  return apiAddress("job/file/content", { ...place, path, how });
}

function Crumbs({ folder, go }: { folder: string; go: (folder: string) => void }) {
  if (!folder) return null;
  const parts = folder.split("/");
  return (
    <nav className="nemo-bar" aria-label={t("parts.folder")}>
      <button type="button" className="nemo-button" onClick={() => go("")}>
        {t("parts.files.top")}
      </button>
      {parts.map((part, index) => (
        <button
          key={index}
          type="button"
          className="nemo-button"
          disabled={index === parts.length - 1}
          onClick={() => go(parts.slice(0, index + 1).join("/"))}
        >
          {part}
        </button>
      ))}
    </nav>
  );
}

function File({ place, path }: { place: JobQuery; path: string }) {
  const answer = useApi<Schemas["Preview"]>("job/file", { ...place, path });
  const name = path.slice(path.lastIndexOf("/") + 1);
  return (
    <section className="nemo-preview" aria-label={t("parts.preview", { name })}>
      <div className="nemo-bar" style={{ justifyContent: "space-between" }}>
        <h3>{path}</h3>
        <a href={content(place, path)}>{t("parts.download")}</a>
      </div>
      <Await of={answer}>
        {(file) => (
          <>
            <Shown place={place} file={file} name={name} />
            {file.is_cut && (
              <p className="muted">{t("parts.preview.cut", { shown: sizeText(file.shown), size: sizeText(file.size) })}</p>
            )}
          </>
        )}
      </Await>
    </section>
  );
}

function Shown({ place, file, name }: { place: JobQuery; file: Schemas["Preview"]; name: string }) {
  const text = file.text ?? "";
  if (file.why_not) return <p className="muted">{file.why_not}</p>;
  switch (file.kind) {
    case "image":
      return <img src={content(place, file.path, "inline")} alt={name} />;
    case "html":
      return (
        <>
          {/* No allow-scripts and no allow-same-origin: what a job has written is not a page of Airflow's. */}
          <iframe sandbox="" src={content(place, file.path, "inline")} title={name} />
          <p className="muted">{t("parts.preview.scripts")}</p>
        </>
      );
    case "table":
      return file.table ? <Table table={file.table} name={name} /> : <Text text={text} name={name} />;
    case "json":
      return <Text text={file.is_cut ? text : pretty(text)} name={name} />;
    case "markdown":
      return <Markdown text={text} />;
    case "log":
      return <Log text={text} name={name} />;
    default:
      return <Text text={text} name={name} />;
  }
}

/** JSON with its structure shown; as it is where a browser cannot read it, as with NaN. */
function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function Text({ text, name }: { text: string; name: string }) {
  return (
    <>
      <pre className="nemo-text" tabIndex={0} aria-label={name}>{text}</pre>
      <CopyButton text={text} />
    </>
  );
}

function Table({ table, name }: { table: Schemas["Table"]; name: string }) {
  return (
    <>
      <div className="nemo-text" tabIndex={0} role="region" aria-label={name}>
        <table className="nemo-table">
          <thead>
            <tr>{table.columns.map((column, index) => <th key={index}>{column}</th>)}</tr>
          </thead>
          <tbody>
            {table.rows.map((row, number) => (
              <tr key={number}>{row.map((cell, index) => <td key={index}>{cell}</td>)}</tr>
            ))}
          </tbody>
        </table>
      </div>
      {table.more_rows && <p className="muted">{t("parts.preview.rows")}</p>}
      {table.more_columns > 0 && <p className="muted">{t("parts.preview.columns", { n: table.more_columns })}</p>}
    </>
  );
}

function Log({ text, name }: { text: string; name: string }) {
  const [wanted, setWanted] = useState("");
  const lines = text.split("\n");
  const found = wanted ? lines.filter((line) => line.toLowerCase().includes(wanted.toLowerCase())) : lines;
  return (
    <>
      <div className="nemo-bar">
        <input
          className="nemo-field"
          type="search"
          value={wanted}
          placeholder={t("parts.log.search")}
          aria-label={t("parts.log.search")}
          onChange={(event) => setWanted(event.target.value)}
        />
        {wanted && <span className="muted" role="status">{t("parts.log.found", { n: found.length, total: lines.length })}</span>}
      </div>
      <Text text={found.join("\n")} name={name} />
    </>
  );
}

function Artifacts({ artifacts }: { artifacts: readonly Schemas["MadeArtifact"][] }) {
  const [, setAddress] = useAddress();
  return (
    <Section title={t("parts.artifacts")}>
      <div className="nemo-scroll" tabIndex={0}>
        <table className="nemo-table">
          <thead>
            <tr>
              <th>{t("parts.name")}</th>
              <th>{t("parts.kind")}</th>
              <th className="number">{t("parts.size")}</th>
              <th>{t("parts.digest")}</th>
              <th>{t("parts.where")}</th>
            </tr>
          </thead>
          <tbody>
            {artifacts.map((made) => (
              <tr key={made.name}>
                <td>{made.name}</td>
                <td>{made.kind}</td>
                <td className="number">{made.size ? sizeText(made.size) : ""}</td>
                <td>
                  <code title={made.digest}>{made.digest.slice(0, 12)}</code>
                </td>
                <td>
                  {made.address ||
                    (made.path && (
                      <button
                        type="button"
                        className="nemo-button"
                        onClick={() => setAddress(made.kind === "folder" ? { folder: made.path, file: null } : { file: made.path })}
                      >
                        {made.path}
                      </button>
                    ))}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Section>
  );
}
