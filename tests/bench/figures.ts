/** The lines that microbenchmarks print, so that all of them make one table. */
const NAME_WIDTH = 48
const VALUE_WIDTH = 10

export const figureHead = (): string =>
  `${'what'.padEnd(NAME_WIDTH)}${'value'.padStart(VALUE_WIDTH)} unit   heap bytes each`

/** `heapBytes`: what one of them leaves for the garbage collector. */
export function printFigure(name: string, value: number, unit: string, heapBytes?: number): void {
  const digits = value < 100 ? (value < 1 ? 3 : 1) : 0
  const heap = heapBytes === undefined ? '' : heapBytes.toFixed(2).padStart(12)
  console.log(`${name.padEnd(NAME_WIDTH)}${value.toFixed(digits).padStart(VALUE_WIDTH)} ${unit.padEnd(6)}${heap}`)
}

export function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}
