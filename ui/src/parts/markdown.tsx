// Markdown as elements, never as HTML: what a job has written is shown, and nothing of it runs.
import { Fragment, type ReactNode } from "react";
import { webAddress } from "../host";

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*(\S(?:.*?\S)?)\*|!?\[([^\]]*)\]\(([^)\s]*)[^)]*\)|(https?:\/\/[^\s<>)]+)/;

/** Shows Markdown: headings, lists, tables, code, quotes, emphasis and links of the web. HTML in it is shown as text. */
export function Markdown({ text }: { text: string }) {
  return <div className="nemo-markdown">{blocks(text.replace(/\r\n?/g, "\n").split("\n"))}</div>;
}

function blocks(lines: readonly string[]): ReactNode[] {
  const found: ReactNode[] = [];
  let at = 0;
  const take = (fits: (line: string) => boolean): string[] => {
    const from = at;
    while (at < lines.length && fits(lines[at] ?? "")) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at] ?? "";
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    const fence = /^\s*(```|~~~)/.exec(line);
    if (!line.trim()) {
      at += 1;
    } else if (fence) {
      at += 1;
      const code = take((each) => !each.trim().startsWith(fence[1] ?? "```"));
      at += 1;
      found.push(<pre>{code.join("\n")}</pre>);
    } else if (heading) {
      at += 1;
      found.push(<p className={`nemo-h nemo-h${heading[1]?.length ?? 1}`}>{inline(heading[2] ?? "")}</p>);
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      at += 1;
      found.push(<hr />);
    } else if (line.includes("|") && /^\s*\|?[\s:|-]*-[\s:|-]*$/.test(lines[at + 1] ?? "")) {
      found.push(table(take((each) => each.includes("|"))));
    } else if (/^\s*>/.test(line)) {
      found.push(<blockquote>{blocks(take((each) => /^\s*>/.test(each)).map((each) => each.replace(/^\s*>\s?/, "")))}</blockquote>);
    } else if (isItem(line)) {
      const items = take((each) => isItem(each) || /^\s+\S/.test(each));
      const List = /^\s*\d/.test(line) ? "ol" : "ul";
      found.push(<List>{items.map((each, index) => <li key={index}>{inline(each.replace(/^\s*([-*+]|\d+[.)])\s+/, ""))}</li>)}</List>);
    } else {
      const first = at;
      const paragraph = take((each) => at === first || (!!each.trim() && !/^(#{1,6}\s|\s*(```|~~~|>))/.test(each) && !isItem(each)));
      found.push(<p>{inline(paragraph.join("\n"))}</p>);
    }
  }
  return found.map((each, index) => <Fragment key={index}>{each}</Fragment>);
}

const isItem = (line: string) => /^\s*([-*+]|\d+[.)])\s+\S/.test(line);
const cells = (line: string) => line.trim().replace(/^\||\|$/g, "").split("|").map((each) => each.trim());

function table(lines: readonly string[]): ReactNode {
  const [head = "", , ...rows] = lines;
  return (
    <div className="nemo-scroll" tabIndex={0}>
      <table className="nemo-table">
        <thead>
          <tr>{cells(head).map((each, index) => <th key={index}>{inline(each)}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row, number) => (
            <tr key={number}>{cells(row).map((each, index) => <td key={index}>{inline(each)}</td>)}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(text: string): ReactNode[] {
  const found: ReactNode[] = [];
  let rest = text;
  for (let match = INLINE.exec(rest); match; match = INLINE.exec(rest)) {
    found.push(rest.slice(0, match.index));
    const [whole, , code, strong, strong2, em, label, target, bare] = match;
    if (code !== undefined) found.push(<code>{code}</code>);
    else if ((strong ?? strong2) !== undefined) found.push(<strong>{inline(strong ?? strong2 ?? "")}</strong>);
    else if (em !== undefined) found.push(<em>{inline(em)}</em>);
    else found.push(link(label ?? bare ?? "", target ?? bare ?? "", whole));
    rest = rest.slice(match.index + whole.length);
  }
  found.push(rest);
  return found.map((each, index) => <Fragment key={index}>{each}</Fragment>);
}

/** Images are links as well: a page loads nothing from elsewhere. */
function link(label: string, target: string, whole: string): ReactNode {
  const href = webAddress(target);
  if (!href) return target && label ? label : whole;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer">
      {label || href}
    </a>
  );
}
