// A tree of any size: only the rows in view are in the page. Which rows there are is its owner's to say.
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, type ReactNode } from "react";
import styles from "./tree.css";

export interface TreeRow {
  id: string;
  depth: number;
  /** Whether it is open; null for a leaf. */
  open: boolean | null;
  className?: string;
}

const HEIGHT = 26;

export function Tree<Row extends TreeRow>(props: {
  label: string;
  rows: readonly Row[];
  selected: string;
  onSelect: (id: string) => void;
  onToggle: (row: Row) => void;
  render: (row: Row) => ReactNode;
  height?: number;
}) {
  const { rows, selected } = props;
  const box = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => box.current,
    estimateSize: () => HEIGHT,
    overscan: 12,
  });
  const at = rows.findIndex(({ id }) => id === selected);
  const select = (index: number) => {
    const row = rows[Math.min(Math.max(index, 0), rows.length - 1)];
    if (!row) return;
    props.onSelect(row.id);
    virtual.scrollToIndex(rows.indexOf(row));
  };
  const first = useRef(true);
  useEffect(() => {
    if (first.current && at >= 0) virtual.scrollToIndex(at, { align: "center" });
    first.current = false;
    // Not all that it uses is a dependency, since it runs once: what the address names is shown.
  }, []);
  const keys: Record<string, () => void> = {
    ArrowDown: () => select(at + 1),
    ArrowUp: () => select(at - 1),
    PageDown: () => select(at + 15),
    PageUp: () => select(at - 15),
    Home: () => select(0),
    End: () => select(rows.length - 1),
    ArrowRight: () => {
      const row = rows[at];
      if (row?.open === false) props.onToggle(row);
      else if (row?.open) select(at + 1);
    },
    ArrowLeft: () => {
      const row = rows[at];
      if (row?.open) props.onToggle(row);
      else if (row) select(rows.findLastIndex(({ depth }, index) => index < at && depth < row.depth));
    },
    Enter: () => rows[at]?.open != null && props.onToggle(rows[at]),
  };
  return (
    <>
      <style href="nemo-tree" precedence="default">
        {styles}
      </style>
      <div
        ref={box}
        className="nemo-tree"
        style={{ height: Math.min(props.height ?? 520, rows.length * HEIGHT + 4) }}
        role="tree"
        tabIndex={0}
        aria-label={props.label}
        aria-activedescendant={at >= 0 ? `nemo-row-${at}` : undefined}
        onKeyDown={(event) => {
          const act = keys[event.key];
          if (!act || event.ctrlKey || event.metaKey) return;
          event.preventDefault();
          act();
        }}
      >
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: "relative", minWidth: "max-content" }}>
          {virtual.getVirtualItems().map(({ index, start }) => {
            const row = rows[index];
            if (!row) return null;
            return (
              <div
                key={row.id}
                id={`nemo-row-${index}`}
                role="treeitem"
                aria-level={row.depth + 1}
                aria-selected={row.id === selected}
                aria-expanded={row.open ?? undefined}
                className={`nemo-tree-row ${row.className ?? ""}`}
                style={{ transform: `translateY(${start}px)`, paddingInlineStart: row.depth * 16 + 4 }}
                onClick={() => props.onSelect(row.id)}
                onDoubleClick={() => row.open !== null && props.onToggle(row)}
              >
                <span
                  className="nemo-tree-mark"
                  aria-hidden="true"
                  onClick={(event) => {
                    if (row.open === null) return;
                    event.stopPropagation();
                    props.onToggle(row);
                  }}
                >
                  {row.open === null ? "" : row.open ? "▾" : "▸"}
                </span>
                {props.render(row)}
              </div>
            );
          })}
        </div>
      </div>
    </>
  );
}
