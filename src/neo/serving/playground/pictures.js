// Pictures of the reader to data: addresses of a size that is worth sending.

const MOST_PIXELS_A_SIDE = 2048;
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"];

/** A file to {name, url}, scaled down where a side is too long; throws a sentence where it is no picture. */
export async function readPicture(file) {
  const name = file.name || "picture";
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} cannot be read as a picture; choose a JPEG, PNG, WebP, GIF or BMP file`);
  }
  const scale = MOST_PIXELS_A_SIDE / Math.max(bitmap.width, bitmap.height);
  const asItIs = scale >= 1 && SENT_AS_THEY_ARE.includes(file.type);
  const blob = asItIs ? file : await redrawn(bitmap, Math.min(1, scale), file.type);
  bitmap.close();
  return { name, url: await dataUrl(blob) };
}

function redrawn(bitmap, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const kept = type === "image/jpeg" ? "image/jpeg" : "image/png"; // PNG may be transparent, as the others are
  return new Promise((done) => canvas.toBlob(done, kept, 0.92));
}

function dataUrl(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("the picture cannot be read"));
    reader.readAsDataURL(blob);
  });
}
