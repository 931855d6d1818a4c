import test from 'ava'
import { demoWindowOffset, filePart, filePartByteLength } from '../../../protocol/demo.js'

test('the parts of a file cover it once, in order, whatever its length', (t) => {
  for (const processes of [2, 3, 8]) {
    for (const fileByteLength of [1, 63, 64, 65, 1000, 4096 * processes, 100_003]) {
      const of = { fileByteLength, processes }
      let end = 0
      for (let writer = 0; writer < processes; writer++) {
        for (let holder = 0; holder < processes; holder++) {
          const part = filePart(of, writer, holder)
          t.is(part.fileOffset, end)
          t.true(part.byteLength >= 0 && part.byteLength <= filePartByteLength(of))
          end += part.byteLength
        }
      }
      t.is(end, fileByteLength)
    }
  }
})

test('parts of different writers do not overlap in the memory of a holder', (t) => {
  const of = { fileByteLength: 100_003, processes: 4 }
  for (let writer = 0; writer < 4; writer++) {
    const { windowOffset } = filePart(of, writer, 1)
    t.is(windowOffset, demoWindowOffset + writer * filePartByteLength(of))
    t.is(windowOffset % 64, 0)
  }
})
