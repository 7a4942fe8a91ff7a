declare module "embedding-atlas/component" {
  export type { DataPoint, EmbeddingViewProps, Point, Rectangle, ViewportState } from "embedding-atlas";
  export { EmbeddingView } from "embedding-atlas";
}
