// A photograph -> face.glb, by Java 17 or newer, which needs no package for it and no compilation beforehand.
//
//   java Face.java http://localhost:8000 portrait.jpg face.glb
//
// HTTP with binary tensors (KServe v2), as in face.mjs. One binary output is asked for, so that its bytes are all that
// stands behind the head, and no JSON has to be read.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

public class Face {
    public static void main(String[] arguments) throws Exception {
        byte[] picture = Files.readAllBytes(Path.of(arguments[1]));
        byte[] head = """
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": %d}}],
             "outputs": [{"name": "mesh", "parameters": {"binary_data": true}}]}"""
            .formatted(picture.length + 4).getBytes(StandardCharsets.UTF_8);
        ByteBuffer body = ByteBuffer.allocate(head.length + 4 + picture.length).order(ByteOrder.LITTLE_ENDIAN);
        body.put(head).putInt(picture.length).put(picture);

        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v2/models/face3d/infer"))
            .header("Content-Type", "application/octet-stream")
            .header("Inference-Header-Content-Length", Integer.toString(head.length))
            .POST(HttpRequest.BodyPublishers.ofByteArray(body.array())).build();
        HttpResponse<byte[]> answer = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build()
            .send(request, HttpResponse.BodyHandlers.ofByteArray());
        if (answer.statusCode() != 200) {
            System.err.println(new String(answer.body(), StandardCharsets.UTF_8)); // {"error": "[NoFace] ..."}
            System.exit(1);
        }
        int start = Integer.parseInt(answer.headers().firstValue("Inference-Header-Content-Length").orElseThrow()) + 4;
        Files.write(Path.of(arguments[2]), Arrays.copyOfRange(answer.body(), start, answer.body().length));
    }
}
