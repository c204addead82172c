// The note and the tags of the run, which those may change who may change the task.
import { useState } from "react";
import { ApiError, post } from "../../host";
import { Await, Section } from "../../parts/basics";
import { Markdown } from "../../parts/markdown";
import { useApi } from "../../query";
import { t } from "../../strings";
import type { Schemas } from "../../types";
import { Styles } from "./Styles";
import type { JobQuery, SectionProps } from "./sections";

export function Notes({ place }: SectionProps) {
  const answer = useApi<Schemas["Notes"]>("job/notes", place);
  return (
    <>
      <Styles />
      <Await of={answer}>
        {(notes) => (
          <>
            <Note place={place} notes={notes} reload={answer.reload} />
            <Tags place={place} notes={notes} reload={answer.reload} />
          </>
        )}
      </Await>
    </>
  );
}

interface Props {
  place: JobQuery;
  notes: Schemas["Notes"];
  reload: () => void;
}

/** Does an action; gives what is to be said of it, and whether it is under way. */
export function useAction<Body>(path: string, place: JobQuery, done: (answer: Schemas["Done"]) => void) {
  const [said, setSaid] = useState<{ text: string; isWrong: boolean }>();
  const [isBusy, setBusy] = useState(false);
  const act = (body: Body) => {
    setBusy(true);
    setSaid(undefined);
    post<Schemas["Done"]>(path, body, place)
      .then((answer) => {
        setSaid({ text: answer.message, isWrong: false });
        done(answer);
      })
      .catch((error: unknown) => setSaid({ text: error instanceof ApiError ? error.message : String(error), isWrong: true }))
      .finally(() => setBusy(false));
  };
  return { act, said, isBusy };
}

export function Said({ said }: { said: { text: string; isWrong: boolean } | undefined }) {
  if (!said) return null;
  return said.isWrong ? <p className="nemo-problem" role="alert">{said.text}</p> : <p className="muted" role="status">{said.text}</p>;
}

function Note({ place, notes, reload }: Props) {
  const [draft, setDraft] = useState<{ text: string; was: string }>();
  const { act, said, isBusy } = useAction("job/note", place, () => {
    setDraft(undefined);
    reload();
  });
  return (
    <Section
      title={t("parts.note")}
      aside={
        notes.may_edit &&
        !draft && (
          <button type="button" className="nemo-button" onClick={() => setDraft({ text: notes.note, was: notes.note })}>
            {t("parts.note.edit")}
          </button>
        )
      }
    >
      {draft ? (
        <form
          className="nemo-form"
          onSubmit={(event) => {
            event.preventDefault();
            act(draft);
          }}
        >
          <textarea
            className="nemo-field"
            rows={8}
            maxLength={5000}
            autoFocus
            aria-label={t("parts.note")}
            value={draft.text}
            onChange={(event) => setDraft({ ...draft, text: event.target.value })}
          />
          <div className="nemo-bar">
            <button type="submit" className="nemo-button" disabled={isBusy}>
              {t("parts.note.save")}
            </button>
            <button type="button" className="nemo-button" onClick={() => setDraft(undefined)}>
              {t("cancel")}
            </button>
            <span className="muted">{t("parts.note.markdown")}</span>
          </div>
        </form>
      ) : notes.note ? (
        <Markdown text={notes.note} />
      ) : (
        <p className="muted">{t("parts.note.none")}</p>
      )}
      <Said said={said} />
    </Section>
  );
}

function Tags({ place, notes, reload }: Props) {
  const [name, setName] = useState("");
  const [value, setValue] = useState("");
  const { act, said, isBusy } = useAction<Schemas["NewTag"]>("job/tags", place, () => {
    setName("");
    setValue("");
    reload();
  });
  return (
    <Section title={t("parts.tags")}>
      {notes.tags.length ? (
        <div className="nemo-scroll" tabIndex={0}>
          <table className="nemo-table">
            <thead>
              <tr>
                <th>{t("parts.tag.name")}</th>
                <th>{t("parts.tag.value")}</th>
                {notes.may_edit && <td />}
              </tr>
            </thead>
            <tbody>
              {notes.tags.map((tag) => (
                <tr key={tag.name}>
                  <td>{tag.name}</td>
                  <td style={{ whiteSpace: "pre-wrap", overflowWrap: "anywhere" }}>{tag.value}</td>
                  {notes.may_edit && (
                    <td>
                      <button
                        type="button"
                        className="nemo-button"
                        disabled={isBusy}
                        aria-label={t("parts.tag.remove", { name: tag.name })}
                        onClick={() => act({ name: tag.name, value: null })}
                      >
                        ✕
                      </button>
                    </td>
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p className="muted">{t("parts.tags.none")}</p>
      )}
      {notes.may_edit && (
        <form
          className="nemo-bar"
          style={{ marginTop: 8 }}
          onSubmit={(event) => {
            event.preventDefault();
            act({ name, value });
          }}
        >
          <input className="nemo-field" required maxLength={250} placeholder={t("parts.tag.name")} aria-label={t("parts.tag.name")} value={name} onChange={(event) => setName(event.target.value)} />
          <input className="nemo-field" required maxLength={5000} placeholder={t("parts.tag.value")} aria-label={t("parts.tag.value")} value={value} onChange={(event) => setValue(event.target.value)} />
          <button type="submit" className="nemo-button" disabled={isBusy}>
            {t("parts.tag.add")}
          </button>
        </form>
      )}
      <Said said={said} />
    </Section>
  );
}
