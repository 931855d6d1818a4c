/**
 * A span of mapped memory with every view a reader needs, made once: data paths never create a view.
 * Whoever made the mapping keeps it alive; a `Memory` only looks at it.
 */
export class Memory {
  /** Start of the span in this process's address space. */
  readonly address: number
  readonly byteLength: number
  readonly buffer: ArrayBuffer
  readonly u8: Uint8Array
  readonly i32: Int32Array
  readonly u32: Uint32Array
  readonly f64: Float64Array
  readonly i64: BigInt64Array
  readonly view: DataView

  /** `buffer` covers the mapped bytes; its length must be a multiple of 8. `address` is 0 for ordinary heap memory in tests. */
  constructor(buffer: ArrayBuffer, address = 0) {
    this.address = address
    this.buffer = buffer
    this.byteLength = buffer.byteLength
    this.u8 = new Uint8Array(buffer)
    this.i32 = new Int32Array(buffer)
    this.u32 = new Uint32Array(buffer)
    this.f64 = new Float64Array(buffer)
    this.i64 = new BigInt64Array(buffer)
    this.view = new DataView(buffer)
  }
}
