// A table of any number of rows, of which those in view are drawn. Its cells are plain elements: one of Chakra's in each
// costs half of a frame.
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, type ReactNode } from "react";
import { t } from "../strings";
import css from "./table.css";

const ROW = 36;

export interface Column<T> {
  key: string;
  label: string;
  /** What stands in the head instead of the label. */
  head?: ReactNode;
  width: number;
  isNumber?: boolean;
  /** What the server sorts by, if it can. */
  sort?: string;
  cell: (row: T) => ReactNode;
}

/** A heading above rows that belong together. */
export interface Group {
  group: string;
  title: ReactNode;
}

export function isGroup(item: unknown): item is Group {
  return typeof item === "object" && item !== null && "group" in item;
}

export function VirtualTable<T extends object>(props: {
  label: string;
  columns: readonly Column<T>[];
  items: readonly (T | Group)[];
  id: (row: T) => string;
  className?: (row: T) => string;
  sort: string;
  onSort: (sort: string) => void;
  /** Called with the rows in view. */
  onView?: (rows: T[]) => void;
  /** Called when the last row comes near. */
  onEnd?: () => void;
}) {
  const { items, columns } = props;
  const box = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: items.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW,
    overscan: 8,
    scrollPaddingStart: ROW,
  });
  const shown = rows.getVirtualItems();
  const [first, last] = [shown[0]?.index ?? 0, shown[shown.length - 1]?.index ?? -1];

  const view = items.slice(first, last + 1).filter((item): item is T => !isGroup(item));
  const inView = view.map(props.id).join(" ");
  useEffect(() => {
    props.onView?.(view);
    // Not all that it uses is a dependency: the ids say which rows they are.
  }, [inView]);
  useEffect(() => {
    if (last >= items.length - 1) props.onEnd?.();
    // Not all that it uses is a dependency: asked for once at each end.
  }, [last, items.length]);

  const template = columns.map((column) => `minmax(${column.width}px, ${column.width}fr)`).join(" ");
  const width = { minWidth: columns.reduce((sum, column) => sum + column.width, 0) };
  return (
    <>
      <style href="nemo-table" precedence="default">
        {css}
      </style>
      <div className="nemo-grid" ref={box} role="table" aria-label={props.label} aria-rowcount={items.length + 1} tabIndex={0}>
        <div className="nemo-grid-head" role="rowgroup" style={width}>
          <div className="nemo-grid-row" role="row" aria-rowindex={1} style={{ gridTemplateColumns: template }}>
            {columns.map((column) => (
              <Head key={column.key} column={column} sort={props.sort} onSort={props.onSort} />
            ))}
          </div>
        </div>
        <div className="nemo-grid-body" role="rowgroup" style={{ ...width, height: rows.getTotalSize() }}>
          {shown.map(({ index, start }) => {
            const item = items[index];
            if (item === undefined) return null;
            const at = { transform: `translateY(${start}px)` };
            if (isGroup(item)) {
              return (
                <div key={item.group} className="nemo-grid-row group" role="row" aria-rowindex={index + 2} style={at}>
                  <div role="cell" aria-colspan={columns.length}>
                    {item.title}
                  </div>
                </div>
              );
            }
            return (
              <div
                key={props.id(item)}
                className={`nemo-grid-row ${props.className?.(item) ?? ""}`}
                role="row"
                aria-rowindex={index + 2}
                style={{ ...at, gridTemplateColumns: template }}
              >
                {columns.map((column) => (
                  <div key={column.key} role="cell" className={column.isNumber ? "number" : undefined}>
                    {column.cell(item)}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
      </div>
    </>
  );
}

function Head<T>({ column, sort, onSort }: { column: Column<T>; sort: string; onSort: (sort: string) => void }) {
  const name = column.sort;
  const direction = !name ? undefined : sort === name ? "ascending" : sort === `-${name}` ? "descending" : "none";
  // The largest first, then the smallest, then as it was.
  const next = direction === "descending" ? (name ?? "") : direction === "ascending" ? "" : `-${name}`;
  return (
    <div role="columnheader" aria-sort={direction} className={column.isNumber ? "number" : undefined} title={column.label}>
      {column.head ??
        (name ? (
          <button type="button" className="nemo-grid-sort" onClick={() => onSort(next)} title={t("table.sort")}>
            {column.label}
            {direction === "descending" ? " ↓" : direction === "ascending" ? " ↑" : ""}
          </button>
        ) : (
          column.label
        ))}
    </div>
  );
}
