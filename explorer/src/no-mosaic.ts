// Stands in for @uwdata/mosaic-core and mosaic-sql, which only the unused half of the map's package needs.

const absent = (): never => {
  throw new Error("this page is built without Mosaic");
};

export const coordinator = absent;
export const isSelection = absent;
export const makeClient = absent;
export const Query = absent;
export const add = absent;
export const and = absent;
export const cast = absent;
export const column = absent;
export const eq = absent;
export const gt = absent;
export const isBetween = absent;
export const isIn = absent;
export const literal = absent;
export const lt = absent;
export const lte = absent;
export const mod = absent;
export const mul = absent;
export const or = absent;
export const sql = absent;
export const sub = absent;
