// Tables to take along.

export type Cell = string | number | null;

/** Let the browser keep rows as a CSV file (RFC 4180, UTF-8). */
export function download(name: string, header: string[], rows: Cell[][]) {
  const text = [header, ...rows].map((row) => row.map(field).join(",")).join("\r\n");
  const file = new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }); // the mark tells Excel that it is UTF-8
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function field(value: Cell): string {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // a spreadsheet would take it for a formula
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
